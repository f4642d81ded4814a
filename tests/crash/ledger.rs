//! What must hold whatever happens, kept beside the run: who was promised what, and what arrived where.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use postrider::env::{Clock, RealClock};

use super::event::{Event, Kind};
use super::support::PATIENCE;

/// Milliseconds after its making in which an event may be sent again. The gateway remembers longer.
const REPEAT_MS: u64 = 30_000;

/// Acknowledged deliveries that have yet to arrive, past which the load waits.
const MISSING_MAX: usize = 300;

/// The endpoints, as their paths name them.
pub const ENDPOINTS: [&str; 5] = ["steady", "flaky", "slow", "held", "refusing"];

/// Index of the one that never takes anything.
pub const REFUSING: usize = 4;

/// Indices of the endpoints that an event goes to.
pub fn takers(kind: Kind) -> &'static [usize] {
    match kind {
        // Dead at one while it is pending at the other: what is carried from segment to segment is both.
        Kind::Held => &[3, REFUSING],
        Kind::Refused => &[REFUSING],
        _ => &[0, 1, 2],
    }
}

/// An event and what became of it.
pub struct Entry {
    pub event: Arc<Event>,
    /// The gateway's id, from the first who named it: an answer, a delivery.
    pub id: Option<String>,
    /// It was answered with success, so nothing may be lost.
    pub acknowledged: bool,
    made_ms: u64,
    /// How often each endpoint took it.
    pub taken: [u32; ENDPOINTS.len()],
}

/// Figures of a run.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    pub sent: u64,
    pub acknowledged: u64,
    pub duplicates_told: u64,
    pub conflicts_told: u64,
    /// Answers 503, by code.
    pub refused: BTreeMap<String, u64>,
    pub broken: u64,
    pub attempts: u64,
    pub taken: u64,
    pub taken_again: u64,
}

#[derive(Default)]
pub struct Book {
    pub entries: Vec<Entry>,
    pub by_id: HashMap<String, usize>,
    pub figures: Figures,
    /// Promises that were broken, in words.
    pub wrong: Vec<String>,
    repeatable: VecDeque<usize>,
    held: usize,
    missing: usize,
    stopped: bool,
    /// No gateway runs.
    down: bool,
}

/// The book, shared by all who write in it.
pub struct Ledger {
    book: Mutex<Book>,
    changed: Condvar,
    clock: RealClock,
}

impl Ledger {
    pub fn new() -> Self {
        Self { book: Mutex::default(), changed: Condvar::new(), clock: RealClock::new() }
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    pub fn now_s(&self) -> i64 {
        i64::try_from(self.clock.wall_ms() / 1_000).unwrap()
    }

    pub fn now_ms(&self) -> u64 {
        self.clock.mono_ms()
    }

    /// Enters an event that is about to be sent for the first time.
    pub fn make(&self, make: impl FnOnce(u64) -> Event) -> Arc<Event> {
        let mut book = self.book();
        let event = Arc::new(make(book.entries.len() as u64));
        let (at, made_ms) = (book.entries.len(), self.now_ms());
        book.entries.push(Entry {
            event: Arc::clone(&event),
            id: None,
            acknowledged: false,
            made_ms,
            taken: [0; ENDPOINTS.len()],
        });
        book.held += usize::from(event.kind == Kind::Held);
        if event.kind.has_key() {
            book.repeatable.push_back(at);
        }
        event
    }

    /// An event of the last half minute that the gateway must know again; whether it was acknowledged comes with it.
    pub fn repeat(&self, random: u64) -> Option<(Arc<Event>, bool)> {
        let mut book = self.book();
        let since_ms = self.now_ms().saturating_sub(REPEAT_MS);
        while book.repeatable.front().is_some_and(|&at| book.entries[at].made_ms < since_ms) {
            book.repeatable.pop_front();
        }
        // The newest come again the most: whoever got no answer asks at once.
        let count = book.repeatable.len() as u64;
        let back = if random.is_multiple_of(2) { random / 2 % 32 } else { random / 2 % count.max(1) };
        let at = *book.repeatable.get(usize::try_from(count.checked_sub(back + 1)?).unwrap())?;
        let entry = &book.entries[at];
        Some((Arc::clone(&entry.event), entry.acknowledged))
    }

    /// Whether so many events are not yet held back.
    pub fn holds_less_than(&self, count: usize) -> bool {
        self.book().held < count
    }

    /// The gateway answered that it has the event.
    pub fn acknowledged(&self, number: u64, id: &str) {
        let mut book = self.book();
        book.identify(number, id, "answered");
        book.figures.acknowledged += 1;
        let entry = &mut book.entries[number as usize];
        if !entry.acknowledged {
            entry.acknowledged = true;
            let missing = entry.missing();
            book.missing += missing;
        }
    }

    /// An attempt arrived at an endpoint, which is about to answer.
    pub fn arrived(&self, endpoint: usize, number: Option<u64>, id: &str, body: &[u8], takes: bool) {
        let mut book = self.book();
        book.figures.attempts += 1;
        let known = number.and_then(|n| usize::try_from(n).ok()).filter(|&at| at < book.entries.len());
        let Some(at) = known else {
            return book.wrong(format!("{id} arrived at {} and nobody sent it", ENDPOINTS[endpoint]));
        };
        book.identify(at as u64, id, "delivered");
        let event = Arc::clone(&book.entries[at].event);
        if event.body != body {
            book.wrong(format!("event {at} ({id}) arrived with other bytes than were sent"));
        }
        if !takers(event.kind).contains(&endpoint) {
            book.wrong(format!("event {at} ({id}) arrived at {}, which does not take it", ENDPOINTS[endpoint]));
        }
        if takes {
            book.taken(at, endpoint);
            self.changed.notify_all();
        }
    }

    /// Notes a broken promise.
    pub fn wrong(&self, what: String) {
        self.book().wrong(what);
    }

    /// Says whether a gateway runs, were it only about to start.
    pub fn set_down(&self, down: bool) {
        self.book().down = down;
        self.changed.notify_all();
    }

    /// Waits until the load may go on; false when it must end.
    pub fn may_go_on(&self) -> bool {
        let book = self.book();
        let must_wait = |book: &mut Book| !book.stopped && (book.down || book.missing > MISSING_MAX);
        let waited = self.changed.wait_timeout_while(book, PATIENCE, must_wait);
        let (book, timeout) = waited.unwrap();
        assert!(!timeout.timed_out(), "{} deliveries do not arrive", book.missing);
        !book.stopped
    }

    /// Ends the load.
    pub fn stop(&self) {
        self.book().stopped = true;
        self.changed.notify_all();
    }

    /// Waits until all that was acknowledged has arrived where it can.
    pub fn drain(&self, done: impl Fn(&Book) -> bool) {
        let waited = self.changed.wait_timeout_while(self.book(), PATIENCE, |book| book.missing > 0 || !done(book));
        let (book, timeout) = waited.unwrap();
        let late = book.entries.iter().filter(|entry| entry.acknowledged && entry.missing() > 0);
        let late: Vec<_> = late.map(|e| (e.event.number, e.event.kind, e.id.clone(), e.taken)).take(10).collect();
        assert!(!timeout.timed_out(), "acknowledged and not delivered: {late:?}, wrong: {:#?}", book.wrong);
    }
}

impl Entry {
    /// Endpoints that have yet to take it. Those that will not take it now don't count.
    fn missing(&self) -> usize {
        takers(self.event.kind).iter().filter(|&&endpoint| endpoint < 3 && self.taken[endpoint] == 0).count()
    }
}

impl Book {
    /// One event, one id: in every answer, at every endpoint, over every kill.
    pub fn identify(&mut self, number: u64, id: &str, how: &str) {
        let entry = &mut self.entries[number as usize];
        let kind = entry.event.kind;
        match &entry.id {
            Some(known) if known == id => {}
            Some(known) => {
                let what = format!("event {number} ({kind:?}) has two ids: {known} and, {how}, {id}");
                self.wrong(what);
            }
            None => {
                entry.id = Some(id.to_owned());
                if let Some(other) = self.by_id.insert(id.to_owned(), number as usize) {
                    self.wrong(format!("{id} stands for event {other} and, {how}, for {number} ({kind:?})"));
                }
            }
        }
    }

    pub fn wrong(&mut self, what: String) {
        // The first few tell the story.
        if self.wrong.len() < 50 {
            self.wrong.push(what);
        }
    }

    fn taken(&mut self, at: usize, endpoint: usize) {
        self.figures.taken += 1;
        let entry = &mut self.entries[at];
        entry.taken[endpoint] += 1;
        if entry.taken[endpoint] > 1 {
            self.figures.taken_again += 1;
        } else if entry.acknowledged && endpoint < 3 {
            self.missing -= 1;
        }
    }
}
