//! Initial syncs against real servers. That they join the feed without a seam, under concurrent writers, is shown end
//! to end in `tests/`.

#[cfg(test)]
mod access;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod interruptions;
#[cfg(test)]
mod lookups;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod tables;
