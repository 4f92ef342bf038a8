//! What can break, and schedules of it. Every fault is done by the means that the world has for it: signals, `pg_ctl`,
//! a proxy in the connection, a full file system.
//!
//! A [`Schedule`] is a sequence of [`Planned`] faults that its seed alone decides; a [`World`] is a source, a history, a
//! daemon and the links between them, in which each [begins](World::begin) and [ends](World::end).

mod clock;
mod disk;
mod hostile;
mod kind;
mod means;
mod schedule;
mod world;

pub use kind::{ClientFault, Fault, Link, LinkFault};
pub use schedule::{Planned, Schedule};
pub use world::{World, WorldSettings};
