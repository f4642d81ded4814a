//! Pages: an iterator says where a listing goes on, and a `-` before it, in which direction.
//!
//! Lists are newest first. `iterator` leads to the older page, `prevIterator` to the newer one; both are opaque to clients.
//! `done` says that nothing is left in the direction of the walk; what is accepted later can still be had with
//! `prevIterator`.

use super::input::{Query, shown};
use super::problem::Problem;
use super::shapes::PageShape;
use crate::core::delivery::DeliveryId;
use crate::core::id::EventId;
use crate::core::limits::ApiLimits;
use crate::store::{Cursor, DeadKey};

/// Entries of a page when the request names no limit.
const PAGE_DEFAULT: usize = 50;

/// A place in a listing that has a text.
pub(super) trait Place: Copy {
    /// The text, without `-`.
    fn write(&self) -> String;
    /// Reads what [`write`](Self::write) wrote.
    fn read(text: &str) -> Option<Self>;
}

impl Place for EventId {
    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Place for DeadKey {
    fn write(&self) -> String {
        format!("{}.{}.{}", self.at_ms, self.delivery.endpoint, self.delivery.event)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let at_ms = parts.next().filter(|ms| !ms.starts_with('+'))?.parse().ok()?;
        let endpoint = parts.next()?.parse().ok()?;
        let event = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self { at_ms, delivery: DeliveryId { endpoint, event } })
    }
}

/// The parameters `limit` and `iterator`.
pub(super) fn asked<K: Place>(query: &mut Query<'_>, limits: &ApiLimits) -> Result<(usize, Cursor<K>), Problem> {
    let limit = query.count("limit", limits.page_max)?.unwrap_or(PAGE_DEFAULT.min(limits.page_max));
    Ok((limit, cursor(query.text("iterator").as_deref())?))
}

/// The cursor that an iterator stands for.
pub(super) fn cursor<K: Place>(iterator: Option<&str>) -> Result<Cursor<K>, Problem> {
    let Some(text) = iterator else { return Ok(Cursor::Start) };
    let read = match text.strip_prefix('-') {
        Some(text) => K::read(text).map(Cursor::NewerThan),
        None => K::read(text).map(Cursor::OlderThan),
    };
    let expected = || format!("expected an iterator or prevIterator of an earlier page, got {:?}", shown(text));
    read.ok_or_else(|| Problem::invalid("iterator", expected()))
}

/// The page of `data`, newest first, that `cursor` led to. `place` names an entry's place; `next` is where the store says
/// that the walk goes on.
pub(super) fn page<'a, T, U, K: Place>(
    cursor: Cursor<K>,
    data: &'a [T],
    next: Option<K>,
    place: impl Fn(&'a T) -> K,
    shape: impl FnMut(&'a T) -> U,
) -> PageShape<U> {
    let (newest, oldest) = (data.first().map(&place), data.last().map(&place));
    let (older, newer) = match cursor {
        Cursor::Start | Cursor::OlderThan(_) => (next.or(oldest), newest),
        // Where there is nothing newer yet, the same place is the one to ask from again.
        Cursor::NewerThan(from) => (oldest, next.or(newest).or(Some(from))),
    };
    PageShape {
        data: data.iter().map(shape).collect(),
        done: next.is_none(),
        iterator: older.map(|k| k.write()),
        prev_iterator: newer.map(|k| format!("-{}", k.write())),
        unreadable: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::EndpointId;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_round_trip_in_both_directions(at_ms: u64, endpoint: u128, event: u128) {
            let delivery = DeliveryId { endpoint: EndpointId::from_u128(endpoint), event: EventId::from_u128(event) };
            let key = DeadKey { at_ms, delivery };
            prop_assert_eq!(cursor::<DeadKey>(Some(&key.write())).unwrap(), Cursor::OlderThan(key));
            prop_assert_eq!(cursor::<DeadKey>(Some(&format!("-{}", key.write()))).unwrap(), Cursor::NewerThan(key));
            let id = delivery.event;
            prop_assert_eq!(cursor::<EventId>(Some(&id.write())).unwrap(), Cursor::OlderThan(id));
        }
    }

    #[test]
    fn what_is_no_iterator_is_refused() {
        for bad in ["", "-", "--", "0", "ep_00000000000000000000000000"] {
            assert!(cursor::<EventId>(Some(bad)).is_err(), "{bad}");
            assert!(cursor::<DeadKey>(Some(bad)).is_err(), "{bad}");
        }
        let (ep, msg) = (EndpointId::MIN, EventId::MIN);
        for bad in [format!("+1.{ep}.{msg}"), format!("1.{ep}"), format!("1.{ep}.{msg}."), format!(".{ep}.{msg}")] {
            assert!(cursor::<DeadKey>(Some(&bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_leads_both_ways() {
        let id = EventId::from_u128;
        let write = |n: u128| Some(id(n).to_string());
        let minus = |n: u128| Some(format!("-{}", id(n)));
        let make = |cursor, data: &[u128], next: Option<u128>| {
            let page = page(cursor, data, next.map(id), |n| id(*n), |n| *n);
            (page.done, page.iterator, page.prev_iterator)
        };
        assert_eq!(make(Cursor::Start, &[], None), (true, None, None));
        assert_eq!(make(Cursor::Start, &[9, 8], Some(8)), (false, write(8), minus(9)));
        assert_eq!(make(Cursor::OlderThan(id(8)), &[7], None), (true, write(7), minus(7)));
        assert_eq!(make(Cursor::NewerThan(id(5)), &[7, 6], Some(7)), (false, write(6), minus(7)));
        assert_eq!(make(Cursor::NewerThan(id(9)), &[], None), (true, None, minus(9)));
    }
}
