//! What is known of a store that was made of a backup: it is as it was at some moment while the backup was taken.

use std::collections::BTreeSet;

use postrider::core::id::{EndpointId, EventId};

use super::{Content, Known, Model, Standing};

impl Model {
    /// What is known now of a backup that was begun when `begun` was known. All that was answered by then is in it; what was
    /// asked or answered since may be in it or not.
    pub fn in_backup(&self, begun: &Self) -> Self {
        let mut model = self.clone();
        model.last_id = begun.last_id;
        for (id, known) in &mut model.events {
            let then = begun.events.get(id);
            let is_gone = then.is_some_and(|then| then.gone);
            known.in_doubt = then.is_none() || (known.gone && !is_gone);
            known.gone = is_gone;
            if then.map_or(Content::Whole, |then| then.content) != known.content {
                known.content = Content::Perhaps;
            }
            for (endpoint, course) in &mut known.courses {
                course.doubt_since(then.and_then(|then| then.courses.get(endpoint)));
            }
        }
        for (endpoint, standing) in &mut model.standings {
            standing.doubt_since(begun.standings.get(endpoint));
        }
        model.keys_before.clone_from(&begun.keys);
        model
    }

    /// The state of a store that was made of a backup takes this one's place; the lives go on.
    pub fn restore(&mut self, backup: &Self) {
        let life = self.life;
        *self = Self { life, ..backup.clone() };
        self.begin_life();
    }

    /// What is listed is there, so that what was in doubt is decided: the store has had it, or never had it.
    pub fn decide(&mut self, listed: &BTreeSet<EventId>) {
        let is_there = |id: &EventId, known: &mut Known| !known.in_doubt || listed.contains(id);
        let went: BTreeSet<_> =
            self.events.extract_if(.., |id, known| !is_there(id, known)).map(|(id, _)| id).collect();
        self.events.values_mut().for_each(|known| known.in_doubt = false);
        self.last_id = self.events.keys().next_back().copied().unwrap_or(EventId::MIN).max(self.last_id);
        let before = std::mem::take(&mut self.keys_before);
        self.keys.retain(|key, claim| {
            if went.contains(&claim.event) {
                let Some(earlier) = before.get(key) else { return false };
                if earlier.event != claim.event {
                    // Its window had ended when the later one was claimed; by a clock that went back since it may hold again.
                    *claim = super::Claim { sure_ms: 0, ..*earlier };
                }
                // Otherwise the event went while the backup was taken, and its key outlasts it.
            }
            true
        });
    }

    /// Deliveries that are pending for sure.
    pub fn surely_pending(&self) -> impl Iterator<Item = (EndpointId, EventId)> + '_ {
        self.events.iter().filter(|(_, known)| !known.in_doubt).flat_map(|(event, known)| {
            let pending = known.courses.iter().filter(|(_, course)| course.is_surely_pending());
            pending.map(|(endpoint, _)| (*endpoint, *event))
        })
    }

    /// Bodies of events whose content is erased for sure, and by which they can be told from others.
    pub fn erased(&self) -> impl Iterator<Item = (EventId, &super::NewEvent)> + '_ {
        let erased = self.events.iter().filter(|(_, known)| known.content == Content::Erased);
        erased.map(|(id, known)| (*id, &*known.new))
    }
}

impl Standing {
    fn doubt_since(&mut self, then: Option<&Self>) {
        let (past, asked) = (self.past.clone(), std::mem::take(&mut self.asked));
        *self = then.cloned().unwrap_or_default();
        self.asked.extend(past.into_iter().skip(self.past.len()).chain(asked));
    }
}
