//! The management API's answers, as far as tables show them. `--json` prints the answer itself, which holds more.

use serde::Deserialize;
use serde_json::value::RawValue;

/// One page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page<T> {
    pub(super) data: Vec<T>,
    pub(super) done: bool,
    pub(super) iterator: Option<String>,
    #[serde(default)]
    pub(super) unreadable: u64,
}

/// A list that comes as a whole.
#[derive(Debug, Deserialize)]
pub(super) struct List<T> {
    pub(super) data: Vec<T>,
}

/// The answer to a publication.
#[derive(Debug, Deserialize)]
pub(super) struct Published {
    pub(super) id: String,
}

/// A message, published or received.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) event_type: Option<String>,
    pub(super) event_id: Option<String>,
    pub(super) source: Option<String>,
    pub(super) timestamp: String,
    pub(super) erased: bool,
    pub(super) payload: Option<Box<RawValue>>,
    pub(super) payload_base64: Option<String>,
}

/// A message on its way to one endpoint.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delivery {
    pub(super) endpoint_id: String,
    pub(super) endpoint_name: Option<String>,
    pub(super) status: String,
    pub(super) next_attempt: Option<String>,
    pub(super) attempts: u32,
    pub(super) reason: Option<String>,
}

/// One try.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attempt {
    pub(super) endpoint_id: String,
    pub(super) endpoint_name: Option<String>,
    pub(super) number: u32,
    pub(super) status: Option<u16>,
    pub(super) outcome: String,
    pub(super) error: Option<AttemptError>,
    pub(super) started_at: String,
    pub(super) timings: Timings,
    pub(super) next: Next,
}

/// Why no response came.
#[derive(Debug, Deserialize)]
pub(super) struct AttemptError {
    pub(super) kind: String,
    pub(super) detail: String,
}

/// Where the time of a try went.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Timings {
    pub(super) total_us: u64,
}

/// What became of the delivery after a try.
#[derive(Debug, Deserialize)]
pub(super) struct Next {
    pub(super) state: String,
    pub(super) due: Option<String>,
    pub(super) reason: Option<String>,
}

/// A delivery that is not tried again on its own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadLetter {
    pub(super) message_id: String,
    pub(super) endpoint_id: String,
    pub(super) endpoint_name: Option<String>,
    pub(super) event_type: Option<String>,
    pub(super) reason: String,
    pub(super) at: String,
    pub(super) attempts: u32,
}

/// An endpoint.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) name: String,
    pub(super) application: String,
    pub(super) url: Option<String>,
    pub(super) standing: String,
    pub(super) since: Option<String>,
    pub(super) sources: Vec<String>,
    pub(super) event_types: Vec<String>,
}

impl Attempt {
    /// The endpoint's name, or its id when the name is gone.
    pub(super) fn endpoint(&self) -> &str {
        self.endpoint_name.as_deref().unwrap_or(&self.endpoint_id)
    }

    /// What came of it: the status, or why there is none.
    pub(super) fn result(&self) -> String {
        match (self.status, &self.error) {
            (Some(status), _) => status.to_string(),
            (None, Some(error)) => format!("{}: {}", error.kind, error.detail),
            (None, None) => self.outcome.clone(),
        }
    }
}

impl Next {
    /// What happens next, with the time or the reason.
    pub(super) fn shown(&self) -> String {
        let more = self.due.as_ref().or(self.reason.as_ref());
        more.map_or_else(|| self.state.clone(), |more| format!("{} {more}", self.state))
    }
}
