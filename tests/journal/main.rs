//! The journal from outside: what it promises, on a disk that can fail and lose power.

mod basics;
mod crash;
mod damage;
mod erase;
mod model;
mod salvage;
