//! What the product logs: an ERROR that nothing explains breaks a promise, and a replay shows all.

use std::cell::RefCell;
use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    static ERRORS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps errors for whoever asks, and shows everything if told to.
pub struct Logs {
    pub show: bool,
}

/// The errors of this thread since the last time.
pub fn take_errors() -> Vec<String> {
    ERRORS.with_borrow_mut(std::mem::take)
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Logs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("postrider") && (self.show || *metadata.level() == Level::ERROR)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        if self.show {
            eprintln!("    {}{}", event.metadata().level(), line.0);
        }
        if *event.metadata().level() == Level::ERROR {
            ERRORS.with_borrow_mut(|errors| errors.push(line.0));
        }
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}
