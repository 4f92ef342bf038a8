//! Predicates by their place; mostly there is one.

use std::collections::BTreeSet;

#[derive(Clone, Debug)]
pub(super) enum Places {
    One(usize),
    Many(BTreeSet<usize>),
}

impl Places {
    pub(super) fn add(&mut self, place: usize) {
        match self {
            Self::One(other) => *self = Self::Many(BTreeSet::from([*other, place])),
            Self::Many(many) => {
                many.insert(place);
            }
        }
    }

    /// Whether none is left.
    pub(super) fn take(&mut self, place: usize) -> bool {
        match self {
            Self::One(other) => *other == place,
            Self::Many(many) => {
                many.remove(&place);
                many.is_empty()
            }
        }
    }

    pub(super) fn collect(&self, places: &mut Vec<usize>) {
        match self {
            Self::One(place) => places.push(*place),
            Self::Many(many) => places.extend(many),
        }
    }

    pub(super) fn find(&self, mut is_it: impl FnMut(usize) -> bool) -> Option<usize> {
        match self {
            Self::One(place) => Some(*place).filter(|place| is_it(*place)),
            Self::Many(many) => many.iter().copied().find(|place| is_it(*place)),
        }
    }
}
