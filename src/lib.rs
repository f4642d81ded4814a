//! postrider

pub mod env;
pub mod journal;
