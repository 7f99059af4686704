//! What services do while a server that they need is away, in each of the ways there are.

mod postgres;
mod redis;
