//! The conformance cases of the reference (section 10), by number, as a client sees them. `docs/conformance.md` says
//! where each of the 70 is tested.
//!
//! Most are rows of tables ([`trial::Case`]): what is written, and what a client is told line by line. Every table is
//! checked four times: live, in `change_history`, by a client that comes in later, and by one that comes in after a
//! restart of the daemon, when nothing is left in its memory.

mod changes;
mod definitions;
mod encodings;
mod identity;
mod order;
mod publications;
mod server_faults;
mod snapshots;
mod trial;
mod values;
mod witness;
mod writers;
