//! Deliveries against receivers that a test scripts byte by byte: honest ones, hostile ones, and addresses that deliveries
//! must not reach.

mod answers;
mod connections;
mod hostile;
mod reach;
mod support;
mod tls;
