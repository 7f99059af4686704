//! Tests services while Postgres or Redis is unavailable, once for each kind of outage.

mod postgres;
mod redis;
