//! The public listener from outside: real sockets, hand-written bytes, the store in memory behind it.

mod answers;
mod gateway;
mod hostile;
mod lifetime;
