//! The slot, the publications and the loop between slot and feed, on real servers.

// `cfg(test)` says to clippy what the folder says to people.
#[cfg(test)]
mod cases;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod features;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod publications;
#[cfg(test)]
mod slots;
#[cfg(test)]
mod source;
