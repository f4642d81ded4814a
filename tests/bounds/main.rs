//! What the gateway may take of the machine, measured from outside on the real binary: memory, disk, descriptors; and that
//! deliveries go on where intake stops.

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "other tests take more of it")]
mod support;
#[path = "../support/switched.rs"]
mod switched;

mod descriptors;
mod full;
mod load;
mod pending;
