//! What a filter answers, beside what Postgres answers; what is refused; and what nobody can make it do.

#[path = "../../fuzz/checks.rs"]
mod checks;
mod claims;
mod corpus;
mod differential;
mod generate;
mod injection;
mod policies;
mod properties;
mod pure;
mod refusals;
mod table;
mod transitions;
