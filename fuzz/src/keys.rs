//! Keys and values of every family of the key space: two keys and a value, of the lengths that their first bytes say.

use std::fmt::Debug;

use postrider::index::{Meta, dead, dedup, delivery, due, erased, event, note};

use super::input::Input;

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (one, other) = (usize::from(input.u8()), usize::from(input.u8()));
    let (one, other, value) = (input.take(one), input.take(other), input.rest());
    // Orders are those that the table in `index` tells: what a scan must meet first has the lower bytes.
    key(one, other, dead::parse_key, |(at_ms, id)| dead::key(at_ms, id), |(at, id)| (at, id.endpoint, id.event));
    key(one, other, delivery::parse_key, delivery::key, |id| (id.endpoint, id.event));
    key(one, other, due::parse_key, |(endpoint, due_ms, event)| due::key(endpoint, due_ms, event), |parts| parts);
    key(one, other, dedup::parse_key, |key| dedup::key(&key), |key| (key.scope.byte(), key.hash));
    key(one, other, erased::parse_key, erased::key, |event| event);
    key(one, other, note::parse_key, note::key, |endpoint| endpoint);
    event_key(one);
    values(value);
}

/// Two keys of one family: each is the only way to write what it means, and their bytes sort as that does.
fn key<T: Copy, O: Ord>(
    one: &[u8],
    other: &[u8],
    parse: impl Fn(&[u8]) -> Option<T>,
    write: impl Fn(T) -> Vec<u8>,
    order: impl Fn(T) -> O,
) {
    let Some(first) = parse(one) else { return };
    assert_eq!(write(first), one);
    let Some(second) = parse(other) else { return };
    assert_eq!(one.cmp(other), order(first).cmp(&order(second)));
}

fn event_key(bytes: &[u8]) {
    let Some(event) = event::parse_key(bytes) else { return };
    let (plain, carried) = (event::key(event), event::carried_key(event));
    assert!(bytes == plain || bytes == carried);
    // Nothing comes between the two, and they come before the next event's.
    assert!(plain < carried && carried < event::key(event.successor()) || event == event.successor());
}

fn values(bytes: &[u8]) {
    // The time of these stands in the key; any does.
    const AT_MS: u64 = 1_700_000_000_000;
    value(bytes, |bytes| dead::parse_value(AT_MS, bytes), dead::value);
    value(bytes, |bytes| due::parse_value(AT_MS, bytes), due::value);
    value(bytes, delivery::parse_value, delivery::value);
    value(bytes, dedup::parse_value, dedup::value);
    value(bytes, event::parse_value, |entry| event::value(*entry));
    bincoded(bytes, note::parse_value, note::value);
    bincoded(bytes, Meta::decode, Meta::encode);
}

fn value<T>(bytes: &[u8], parse: impl Fn(&[u8]) -> Option<T>, write: impl Fn(&T) -> Vec<u8>) {
    if let Some(value) = parse(bytes) {
        assert_eq!(write(&value), bytes);
    }
}

/// Numbers of bincode can be written in more bytes than they need, so only what they mean stays the same.
fn bincoded<T: PartialEq + Debug>(bytes: &[u8], parse: impl Fn(&[u8]) -> Option<T>, write: impl Fn(&T) -> Vec<u8>) {
    let Some(value) = parse(bytes) else { return };
    let written = write(&value);
    assert!(written.len() <= bytes.len());
    assert_eq!(parse(&written), Some(value));
}
