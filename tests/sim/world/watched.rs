//! The store with the model beside it: every call and every answer is told to the model on the way.

use std::sync::{Arc, Mutex};

use postrider::core::delivery::DeliveryId;
use postrider::core::event::{Event, NewEvent};
use postrider::core::fact::{EndpointNote, Standing};
use postrider::core::id::{EndpointId, EventId};
use postrider::store::embedded::EmbeddedStore;
use postrider::store::{
    Accepted, Applied, AttemptRecord, DeadKey, DeadLetter, DeadQuery, Delivery, Due, DueKey, EventQuery, Hints, Page,
    Redriven, Refusal, Settle, Stats, Store, StoreError,
};

use super::coverage::Kind;
use super::disk::SimDisk;
use super::model::Model;
use super::stage::{Stage, lock};

pub struct Watched {
    pub store: EmbeddedStore<SimDisk>,
    pub model: Arc<Mutex<Model>>,
    pub stage: Arc<Stage>,
    pub disk: SimDisk,
}

/// Whether the call certainly changed nothing; after any other error nobody knows.
fn is_refused(error: &StoreError) -> bool {
    !matches!(error, StoreError::Failed(_) | StoreError::Refused(Refusal::Stopping))
}

/// The type of events whose bytes no other event has.
pub const UNIQUE: &str = "order.created";

/// Bytes of a body from which it is told from chance.
pub const TELLING_BYTES: usize = 32;

impl Watched {
    /// After an erasure no file may hold the bytes, nor hold them again after a power cut.
    pub fn look_for_erased(&self, id: EventId, erased: bool) {
        let model = lock(&self.model);
        let new = model.known(id).map(|known| &known.new);
        let told = new.filter(|new| new.event_type.as_deref() == Some(UNIQUE) && new.body.len() >= TELLING_BYTES);
        if let (true, Some(body)) = (erased, told.map(|new| &new.body))
            && let Some(file) = self.disk.find(&body[..TELLING_BYTES])
        {
            self.stage.breach(format!("{id} is erased, its bytes are in {file}"));
        }
    }

    fn unreadable<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Unreadable { segment, offset }) = &result {
            self.stage.cover(Kind::DamageUnreadable);
            if !lock(&self.model).damaged {
                self.stage.breach(format!("segment {segment} is said to be damaged at {offset}, it is not"));
            }
        }
        result
    }
}

impl Store for Watched {
    async fn accept(&self, event: NewEvent) -> Result<Accepted, StoreError> {
        let token = event.external_id.as_deref().and_then(|text| text.parse().ok()).expect("every event has a number");
        lock(&self.model).accept_asked(token, &event, self.now_ms());
        let result = self.store.accept(event).await;
        match &result {
            Ok(accepted) => {
                let (id, new) = match accepted {
                    Accepted::New { event } => (event.meta.id, true),
                    Accepted::Duplicate { id, .. } => (*id, false),
                };
                self.stage.note(format_args!("{} accepted {token} as {id}, new: {new}", self.now_ms()));
                lock(&self.model).accept_answered(token, accepted, self.now_ms());
            }
            Err(error) if is_refused(error) => {
                self.stage.cover(Kind::IntakeClosed);
                lock(&self.model).accept_refused(token);
            }
            Err(_) => {}
        }
        result
    }

    async fn settle(&self, settle: Settle) -> Result<Applied, StoreError> {
        lock(&self.model).settle_asked(&settle);
        let result = self.store.settle(settle.clone()).await;
        if let Ok(applied) = result {
            let id = settle.delivery;
            let next = settle.next;
            self.stage.note(format_args!(
                "{} settled {} {} {next:?} {applied:?}",
                self.now_ms(),
                id.event,
                id.endpoint
            ));
            lock(&self.model).settle_answered(&settle, applied, self.now_ms());
        }
        result
    }

    async fn backup(&self) -> Result<postrider::store::Backup, StoreError> {
        self.store.backup().await
    }

    async fn pending(&self, endpoint: EndpointId, after: Option<DueKey>, limit: usize) -> Result<Vec<Due>, StoreError> {
        let result = self.store.pending(endpoint, after, limit).await;
        if let Ok(found) = &result
            && !found.is_sorted_by(|one, next| one.key() < next.key())
        {
            self.stage.breach(format!("what is pending at {endpoint} is out of order"));
        }
        result
    }

    async fn event(&self, id: EventId) -> Result<Option<Arc<Event>>, StoreError> {
        let result = self.unreadable(self.store.event(id).await);
        match &result {
            Ok(Some(event)) => lock(&self.model).read(event),
            Ok(None) => lock(&self.model).missed(id, self.now_ms()),
            Err(StoreError::Failed(_)) => lock(&self.model).failed = true,
            Err(_) => {}
        }
        result
    }

    async fn events(&self, query: EventQuery) -> Result<Page<Arc<Event>, EventId>, StoreError> {
        let result = self.unreadable(self.store.events(query).await);
        if let Ok(page) = &result {
            page.data.iter().for_each(|event| lock(&self.model).read(event));
            if !page.data.is_sorted_by(|one, next| one.meta.id > next.meta.id) {
                self.stage.breach("events are listed out of order".to_owned());
            }
        }
        result
    }

    async fn deliveries(&self, id: EventId) -> Result<Option<Vec<Delivery>>, StoreError> {
        let result = self.unreadable(self.store.deliveries(id).await);
        if let Ok(None) = result {
            lock(&self.model).missed(id, self.now_ms());
        }
        result
    }

    async fn attempts(&self, id: EventId) -> Result<Option<Vec<AttemptRecord>>, StoreError> {
        self.unreadable(self.store.attempts(id).await)
    }

    async fn dead(&self, query: DeadQuery) -> Result<Page<DeadLetter, DeadKey>, StoreError> {
        self.store.dead(query).await
    }

    async fn redrive(&self, delivery: DeliveryId) -> Result<Redriven, StoreError> {
        lock(&self.model).redrive_asked(delivery);
        let result = self.unreadable(self.store.redrive(delivery).await);
        self.stage.note(format_args!("{} redrive {} {}", self.now_ms(), delivery.event, delivery.endpoint));
        match &result {
            Ok(redriven) => lock(&self.model).redrive_answered(delivery, Some(*redriven)),
            Err(error) if is_refused(error) => lock(&self.model).redrive_answered(delivery, None),
            Err(_) => {}
        }
        result
    }

    async fn erase(&self, id: EventId) -> Result<bool, StoreError> {
        lock(&self.model).erase_asked(id);
        let result = self.unreadable(self.store.erase(id).await);
        self.stage.note(format_args!("{} erase {id}", self.now_ms()));
        match &result {
            Ok(erased) => {
                lock(&self.model).erase_answered(id, Some(*erased), self.now_ms());
                self.look_for_erased(id, *erased);
            }
            Err(error) if is_refused(error) => lock(&self.model).erase_answered(id, None, self.now_ms()),
            Err(_) => {}
        }
        result
    }

    async fn set_standing(
        &self,
        endpoint: EndpointId,
        app: &str,
        name: &str,
        standing: Standing,
    ) -> Result<(), StoreError> {
        let word = standing.as_str();
        lock(&self.model).standing_asked(endpoint, word);
        let result = self.store.set_standing(endpoint, app, name, standing).await;
        self.stage.note(format_args!("{} {name} is {word} {}", self.now_ms(), result.is_ok()));
        match &result {
            Ok(()) => lock(&self.model).standing_answered(endpoint, word, true, self.now_ms()),
            Err(error) if is_refused(error) => {
                lock(&self.model).standing_answered(endpoint, word, false, self.now_ms());
            }
            Err(_) => {}
        }
        result
    }

    fn endpoint_notes(&self) -> Vec<EndpointNote> {
        self.store.endpoint_notes()
    }

    fn hints(&self) -> Arc<Hints> {
        self.store.hints()
    }

    fn now_ms(&self) -> u64 {
        self.store.now_ms()
    }

    fn intake(&self) -> Result<(), Refusal> {
        self.store.intake()
    }

    fn stats(&self) -> Stats {
        self.store.stats()
    }

    fn durability(&self) -> &'static str {
        self.store.durability()
    }
}
