//! What policies say, how wrong ones are told, and that nobody gets more than was granted.

mod channels;
mod documented;
mod mistakes;
mod more_than_granted;
mod precedence;
mod table;
