//! What was promised: every acknowledged event with the states that its deliveries may be in, by the calls that were made
//! and answered. A call that was made and not answered may have happened or not; a new start decides.

mod course;
mod rules;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use postrider::core::attempt::{FailureKind, Outcome};
use postrider::core::delivery::{DeadReason, DeliveryId, DeliveryState, Next, Pending};
use postrider::core::event::{DedupKey, Event, NewEvent};
use postrider::core::id::{EndpointId, EventId};
use postrider::engine::Job;
use postrider::store::{Accepted, Applied, Redriven, Settle};

use self::course::{Change, Course, SOME_ATTEMPTS, SOME_TIME_MS, matches, redrive, settled, take_first};
use super::coverage::Kind;
use super::stage::Stage;

/// What may be read of an event's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Whole,
    /// An erasure was asked for and not answered.
    Perhaps,
    Erased,
}

/// An acknowledged event.
#[derive(Debug, Clone)]
pub struct Known {
    pub new: Arc<NewEvent>,
    accepted_ms: u64,
    courses: BTreeMap<EndpointId, Course>,
    content: Content,
    /// Past retention.
    gone: bool,
    /// The backup that the store was made of has it or not.
    in_doubt: bool,
    life: u32,
}

/// Whom a dedup key stands for.
#[derive(Debug, Clone, Copy)]
struct Claim {
    event: EventId,
    /// It holds for sure until here, and surely no longer after `ends_ms`.
    sure_ms: u64,
    ends_ms: u64,
    life: u32,
}

/// An accept that was not answered.
#[derive(Debug, Clone)]
struct Asked {
    new: Arc<NewEvent>,
    at_ms: u64,
}

/// How an endpoint stands.
#[derive(Debug, Default, Clone)]
struct Standing {
    state: Option<&'static str>,
    /// All that were answered, the present one last.
    past: Vec<&'static str>,
    asked: Vec<&'static str>,
    /// Since when it takes nothing.
    closed_ms: Option<u64>,
}

/// Limits that decide what may be forgotten, and what may be done when.
#[derive(Debug, Clone)]
pub struct Terms {
    pub retention_ms: u64,
    pub dedup_ms: u64,
    /// The journal may be at its byte limit, so events go before their time.
    pub is_tight: bool,
    pub in_flight_max: usize,
    /// Seconds between the attempts at an endpoint.
    pub schedules_s: BTreeMap<EndpointId, &'static [u64]>,
}

#[derive(Debug, Clone)]
pub struct Model {
    stage: Arc<Stage>,
    terms: Terms,
    asked: BTreeMap<u64, Asked>,
    events: BTreeMap<EventId, Known>,
    keys: BTreeMap<DedupKey, Claim>,
    /// Those of the moment when the backup was begun that the store was made of.
    keys_before: BTreeMap<DedupKey, Claim>,
    standings: BTreeMap<EndpointId, Standing>,
    leases: BTreeSet<DeliveryId>,
    /// Attempts that are under way.
    running: BTreeMap<EndpointId, usize>,
    last_id: EventId,
    life: u32,
    /// The storage has failed, so that what was begun may not be done.
    pub failed: bool,
    /// Bits were flipped: reads may say so, and events may be withheld.
    pub damaged: bool,
}

impl Model {
    pub fn new(stage: Arc<Stage>, terms: Terms) -> Self {
        Self {
            stage,
            terms,
            asked: BTreeMap::new(),
            events: BTreeMap::new(),
            keys: BTreeMap::new(),
            keys_before: BTreeMap::new(),
            standings: BTreeMap::new(),
            leases: BTreeSet::new(),
            running: BTreeMap::new(),
            last_id: EventId::MIN,
            life: 0,
            failed: false,
            damaged: false,
        }
    }

    /// It is so late. A key whose window is over may be gone from then on, also where a later life begins earlier: with nothing
    /// written meanwhile, a wall clock that went back takes the store's time with it.
    pub fn saw(&mut self, now_ms: u64) {
        self.keys.values_mut().filter(|claim| claim.sure_ms <= now_ms).for_each(|claim| claim.sure_ms = 0);
    }

    /// Events that were acknowledged and are not past retention.
    pub fn ids(&self) -> Vec<EventId> {
        self.events.iter().filter(|(_, known)| !known.gone).map(|(id, _)| *id).collect()
    }

    pub fn known(&self, id: EventId) -> Option<&Known> {
        self.events.get(&id)
    }

    /// How many accepts were not answered.
    pub fn unanswered(&self) -> usize {
        self.asked.len()
    }

    /// A process has ended; whoever waited for it does not any more.
    pub fn begin_life(&mut self) {
        self.life += 1;
        self.failed = false;
        self.leases.clear();
        self.running.clear();
        for course in self.events.values_mut().flat_map(|known| known.courses.values_mut()) {
            course.begin_life();
        }
    }

    /// Whether the journal may need room that a backup holds back.
    pub const fn is_tight(&self) -> bool {
        self.terms.is_tight
    }

    fn breach(&self, what: String) {
        self.stage.breach(what);
    }
}

/// Accepting.
impl Model {
    pub fn accept_asked(&mut self, token: u64, new: &NewEvent, now_ms: u64) {
        self.asked.insert(token, Asked { new: Arc::new(new.clone()), at_ms: now_ms });
    }

    /// It certainly did not happen.
    pub fn accept_refused(&mut self, token: u64) {
        self.asked.remove(&token);
    }

    pub fn accept_answered(&mut self, token: u64, accepted: &Accepted, now_ms: u64) {
        let Some(asked) = self.asked.remove(&token) else {
            return self.breach(format!("accept {token} was answered twice"));
        };
        match accepted {
            Accepted::New { event } => {
                for key in &asked.new.dedup {
                    if let Some(claim) = self.keys.get(key).filter(|claim| now_ms < claim.sure_ms) {
                        let (event, first) = (event.meta.id, claim.event);
                        self.breach(format!("{event} was accepted under a key that {first} holds"));
                    } else if self.keys.contains_key(key) {
                        self.stage.cover(Kind::KeyReused);
                    }
                }
                if event.meta.id <= self.last_id {
                    self.breach(format!("{} was given out after {}", event.meta.id, self.last_id));
                }
                self.stage.cover(Kind::Accepted);
                self.enter(asked, event);
            }
            Accepted::Duplicate { id, scope, same_body } => {
                self.stage.cover(Kind::Duplicate);
                let key = asked.new.dedup.iter().find(|key| key.scope == *scope);
                let claim = key.and_then(|key| self.keys.get(key)).copied();
                let Some(claim) = claim.filter(|claim| claim.event == *id && asked.at_ms < claim.ends_ms) else {
                    // Where damage cuts a listing short, an unanswered event may hold it.
                    if !(self.damaged && claim.is_none()) {
                        self.breach(format!("a duplicate of {id} was answered, the key is of {claim:?}"));
                    }
                    return;
                };
                if claim.life < self.life {
                    self.stage.cover(Kind::DuplicateAfterCrash);
                }
                let same = self.events.get(id).map(|known| known.new.fingerprint == asked.new.fingerprint);
                if same.is_some_and(|same| same != *same_body) {
                    self.breach(format!("a duplicate of {id} was compared wrongly"));
                }
            }
        }
    }

    fn enter(&mut self, asked: Asked, event: &Event) {
        let (id, accepted_ms) = (event.meta.id, event.meta.accepted_ms);
        self.last_id = self.last_id.max(id);
        for key in &asked.new.dedup {
            let (sure_ms, ends_ms) = (asked.at_ms + self.terms.dedup_ms, accepted_ms + self.terms.dedup_ms + 1);
            self.keys.insert(*key, Claim { event: id, sure_ms, ends_ms, life: self.life });
        }
        let course = |endpoint: &EndpointId| {
            let removing = self.standings.get(endpoint).is_some_and(|s| s.asked.contains(&"removed"));
            let asked = removing.then_some(Change::Buried(DeadReason::EndpointRemoved)).into_iter().collect();
            let state = DeliveryState::Pending(Pending::fresh(accepted_ms));
            (*endpoint, Course::new(state, asked))
        };
        let courses = asked.new.endpoints.iter().map(course).collect();
        let (content, life) = (Content::Whole, self.life);
        let known = Known { new: asked.new, accepted_ms, courses, content, gone: false, in_doubt: false, life };
        self.events.insert(id, known);
    }

    /// An event that nobody was told of is there: then it was asked for, once.
    pub fn adopt(&mut self, event: &Event) {
        let token = event.meta.external_id.as_deref().and_then(|text| text.parse::<u64>().ok());
        match token.and_then(|token| self.asked.remove(&token)) {
            Some(asked) => {
                self.stage.cover(Kind::Adopted);
                self.enter(asked, event);
            }
            None => self.breach(format!("{} was never asked for, or is there twice", event.meta.id)),
        }
    }

    /// What was not answered and is not there was never stored.
    pub fn forget_unanswered(&mut self) {
        if !std::mem::take(&mut self.asked).is_empty() {
            self.stage.cover(Kind::Vanished);
        }
    }

    /// An event as it was read.
    pub fn read(&self, event: &Event) {
        let id = event.meta.id;
        let Some(known) = self.events.get(&id) else { return };
        if known.gone {
            return self.breach(format!("{id} was past retention and is back"));
        }
        let right = match known.content {
            Content::Whole => !event.erased,
            Content::Perhaps => true,
            Content::Erased => event.erased,
        };
        let same = event.erased || event.body == known.new.body;
        let meta = &event.meta;
        let same_meta = (&meta.headers, &meta.endpoints, &meta.event_type, &meta.external_id)
            == (&known.new.headers, &known.new.endpoints, &known.new.event_type, &known.new.external_id);
        if !(right && same && same_meta) {
            self.breach(format!("{id} was read wrongly: erased {}, {:?}", event.erased, known.content));
        }
    }

    /// An acknowledged event was not found.
    pub fn missed(&mut self, id: EventId, now_ms: u64) {
        let why = self.why_not_gone(id, now_ms);
        let Some(known) = self.events.get_mut(&id) else { return };
        if !std::mem::replace(&mut known.gone, true) {
            self.stage.cover(Kind::Forgotten);
            why.into_iter().for_each(|why| self.breach(why));
        }
    }

    /// Why an event must be there still.
    pub fn why_not_gone(&self, id: EventId, now_ms: u64) -> Option<String> {
        let known = self.events.get(&id).filter(|known| !known.gone && !known.in_doubt)?;
        let pending = known.courses.iter().find(|(_, course)| course.is_surely_pending());
        let Terms { retention_ms, is_tight, .. } = self.terms;
        match pending {
            Some((endpoint, _)) => Some(format!("{id} is gone, and its delivery to {endpoint} was pending")),
            None if !is_tight && now_ms <= known.accepted_ms.saturating_add(retention_ms) => {
                Some(format!("{id} is gone before its time"))
            }
            None => None,
        }
    }
}

/// Attempts and settles.
impl Model {
    pub fn attempt_begins(&mut self, job: &Job, retries: usize, now_ms: u64) {
        let (endpoint, event) = (job.endpoint.id, job.event.meta.id);
        let id = DeliveryId { endpoint, event };
        // Where damage cuts a listing short, an unanswered event is first seen here.
        if self.damaged && !self.events.contains_key(&event) {
            self.adopt(&job.event);
        }
        self.read(&job.event);
        self.judge_order(id);
        self.count_in(job);
        if !self.leases.insert(id) {
            self.breach(format!("two attempts of {event} at {endpoint} at once"));
        }
        if job.event.erased {
            self.breach(format!("{event} was sent to {endpoint} after it was erased"));
        }
        let closed_ms = self.standings.get(&endpoint).and_then(|standing| standing.closed_ms);
        if closed_ms.is_some_and(|since_ms| now_ms > since_ms + 1) {
            self.breach(format!("{event} was sent to {endpoint}, which takes nothing"));
        }
        let Some(course) = self.events.get_mut(&event).and_then(|known| known.courses.get_mut(&endpoint)) else {
            return self.breach(format!("{event} was sent to {endpoint} before it was acknowledged"));
        };
        let fits = |state: &DeliveryState| match state {
            DeliveryState::Pending(pending) => {
                let due = pending.due_ms == SOME_TIME_MS || pending.due_ms <= now_ms;
                let next = pending.attempts == SOME_ATTEMPTS || pending.attempts + 1 == job.number;
                due && next && pending.failures as usize <= retries
            }
            _ => false,
        };
        let (state, first) = (course.state(), course.tried.insert(job.number));
        if !course.candidates().iter().any(fits) {
            self.breach(format!("attempt {} of {event} at {endpoint} at {now_ms}, which is {state:?}", job.number));
        } else if !first {
            self.breach(format!("attempt {} of {event} at {endpoint} was made before", job.number));
        }
    }

    pub fn settle_asked(&mut self, settle: &Settle) {
        let Settle { delivery, was, next, attempt, .. } = settle;
        self.leases.insert(*delivery);
        self.judge_next(settle);
        if matches!(attempt.outcome, Outcome::Failed { kind: FailureKind::Unreadable, .. }) {
            self.stage.cover(Kind::DamageWithheld);
        }
        if *next == (Next::Dead { reason: DeadReason::Gone }) {
            self.standings.entry(delivery.endpoint).or_default().asked.push("gone");
        }
        if let Some(course) = self.course(*delivery) {
            course.asked.push(Change::Settled { was: *was, next: *next, ended_ms: attempt.ended_ms });
        }
    }

    pub fn settle_answered(&mut self, settle: &Settle, applied: Applied, now_ms: u64) {
        let Settle { delivery, was, next, attempt, .. } = settle;
        let (id, next, ended_ms) = (*delivery, *next, attempt.ended_ms);
        self.leases.remove(&id);
        let gone = next == Next::Dead { reason: DeadReason::Gone };
        if gone {
            let standing = self.standings.entry(id.endpoint).or_default();
            take_first(&mut standing.asked, |asked| *asked == "gone");
            if applied == Applied::Ok && standing.state == Some("enabled") {
                standing.becomes("gone", now_ms);
            }
        }
        let stage = Arc::clone(&self.stage);
        let Some(course) = course_of(&mut self.events, id) else {
            return self.breach(format!("a settle of an unknown delivery {id:?}"));
        };
        take_first(&mut course.asked, |change| matches!(change, Change::Settled { was: w, .. } if w == was));
        let from = DeliveryState::Pending(*was);
        let matched = matches(&course.state(), &from);
        // What an earlier process was asked last is not decided where damage hides how the delivery stands.
        let perhaps = matched || (self.damaged && course.candidates().iter().any(|state| matches(state, &from)));
        match applied {
            Applied::Ok if perhaps => {
                course.becomes(settled(*was, next, ended_ms));
                stage.cover(match next {
                    Next::Delivered if course.failed_before => Kind::Retried,
                    Next::Delivered => Kind::Delivered,
                    Next::Dead { reason: DeadReason::MaxRetries } => Kind::DeadMaxRetries,
                    Next::Dead { reason: DeadReason::Gone } => Kind::EndpointGone,
                    Next::Dead { .. } => Kind::DeadRejected,
                    Next::Retry { .. } => {
                        course.failed_before = true;
                        return;
                    }
                });
            }
            Applied::Stale if !matched => stage.cover(Kind::StaleSettle),
            _ => {
                let state = course.state();
                self.breach(format!("a settle of {id:?} from {was:?} was answered {applied:?}, it was {state:?}"));
            }
        }
    }

    fn course(&mut self, id: DeliveryId) -> Option<&mut Course> {
        course_of(&mut self.events, id)
    }
}

/// What operators do.
impl Model {
    pub fn redrive_asked(&mut self, id: DeliveryId) {
        self.course(id).into_iter().for_each(|course| course.asked.push(Change::Redriven));
    }

    pub fn redrive_answered(&mut self, id: DeliveryId, redriven: Option<Redriven>) {
        let removed = self.standings.get(&id.endpoint).is_some_and(|standing| standing.state == Some("removed"));
        let Some(course) = self.course(id) else { return };
        take_first(&mut course.asked, |change| matches!(change, Change::Redriven));
        let state = course.state();
        match redriven {
            Some(Redriven::Due) => {
                course.becomes(redrive(state));
                course.tried.clear();
                self.stage.cover(Kind::Redriven);
                if removed {
                    self.breach(format!("{id:?} was redriven to an endpoint that is removed"));
                }
            }
            Some(Redriven::AlreadyDue) if !matches!(state, DeliveryState::Pending(_)) => {
                self.breach(format!("{id:?} was said to be due, it is {state:?}"));
            }
            _ => {}
        }
    }

    pub fn erase_asked(&mut self, id: EventId) {
        let Some(known) = self.events.get_mut(&id) else { return };
        if known.content == Content::Whole {
            known.content = Content::Perhaps;
        }
        known.courses.values_mut().for_each(|course| course.asked.push(Change::Buried(DeadReason::ContentErased)));
    }

    /// `None` when it was refused.
    pub fn erase_answered(&mut self, id: EventId, erased: Option<bool>, now_ms: u64) {
        match erased {
            Some(false) => self.missed(id, now_ms),
            Some(true) => self.stage.cover(Kind::Erased),
            None => {}
        }
        let Some(known) = self.events.get_mut(&id) else { return };
        if erased == Some(true) {
            known.content = Content::Erased;
        }
        for course in known.courses.values_mut() {
            let reason = DeadReason::ContentErased;
            course.bury(reason, erased == Some(true), now_ms);
        }
    }

    /// With nothing under way an erasure that was not answered has happened or has not.
    pub fn finds_content(&mut self, id: EventId, erased: bool) {
        if let Some(known) = self.events.get_mut(&id) {
            known.content = if erased { Content::Erased } else { Content::Whole };
        }
    }

    pub fn standing_asked(&mut self, endpoint: EndpointId, word: &'static str) {
        self.standings.entry(endpoint).or_default().asked.push(word);
        if word == "removed" {
            for course in self.events.values_mut().filter_map(|known| known.courses.get_mut(&endpoint)) {
                course.asked.push(Change::Buried(DeadReason::EndpointRemoved));
            }
        }
    }

    pub fn standing_answered(&mut self, endpoint: EndpointId, word: &'static str, done: bool, now_ms: u64) {
        let standing = self.standings.entry(endpoint).or_default();
        take_first(&mut standing.asked, |asked| *asked == word);
        if done {
            standing.becomes(word, now_ms);
            self.stage.cover(match word {
                "removed" => Kind::Removed,
                "disabled" => Kind::Disabled,
                _ => Kind::Accepted,
            });
        }
        if word == "removed" {
            for course in self.events.values_mut().filter_map(|known| known.courses.get_mut(&endpoint)) {
                course.bury(DeadReason::EndpointRemoved, done, now_ms);
            }
        }
    }
}

/// What a look at the store shows.
impl Model {
    /// A delivery is in this state. With `settled`, nothing is under way, and the state is what counts from here.
    pub fn seen(&mut self, id: DeliveryId, actual: DeliveryState, settled: bool) {
        let life = self.life;
        let born = self.events.get(&id.event).map_or(life, |known| known.life);
        let Some(course) = self.course(id) else { return };
        let candidates = course.candidates();
        let fits = candidates.iter().any(|state| matches(state, &actual));
        if settled {
            let repeated = matches!(actual, DeliveryState::Pending(_)) && born < life && !course.asked.is_empty();
            course.becomes(actual);
            course.asked.clear();
            if repeated {
                self.stage.cover(Kind::AttemptRepeated);
            }
        }
        if !fits {
            self.breach(format!("{id:?} is {actual:?}, it should be one of {candidates:?}"));
        }
    }

    /// An endpoint stands like this.
    pub fn stands(&mut self, endpoint: EndpointId, word: &'static str, settled: bool, now_ms: u64) {
        let standing = self.standings.entry(endpoint).or_default();
        let fits = standing.state == Some(word) || standing.asked.contains(&word);
        let state = standing.state;
        if settled {
            let closed_ms = standing.closed_ms.unwrap_or(now_ms);
            standing.becomes(word, closed_ms);
            standing.asked.clear();
        }
        if !fits {
            self.breach(format!("{endpoint} is {word}, it should be {state:?}"));
        }
    }

    /// Endpoints whose standing was acknowledged.
    pub fn told(&self) -> Vec<EndpointId> {
        self.standings.iter().filter(|(_, standing)| standing.state.is_some()).map(|(id, _)| *id).collect()
    }
}

impl Standing {
    fn becomes(&mut self, word: &'static str, since_ms: u64) {
        self.state = Some(word);
        self.past.push(word);
        self.closed_ms = (word != "enabled").then_some(since_ms);
    }
}

fn course_of(events: &mut BTreeMap<EventId, Known>, id: DeliveryId) -> Option<&mut Course> {
    events.get_mut(&id.event).and_then(|known| known.courses.get_mut(&id.endpoint))
}
