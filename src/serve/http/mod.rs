//! HTTP: connections with limits, who may ask, bodies in, answers and streams out.

pub mod body;
pub mod connection;
pub mod guard;
pub mod origin;
pub mod reply;
pub mod stall;
pub mod stream;
