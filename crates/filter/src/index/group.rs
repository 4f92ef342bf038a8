//! The predicates that compare one operand, by the values they compare it with.

use std::collections::HashMap;

use super::intervals::Intervals;
use super::key;
use super::places::Places;
use crate::evaluate::{Found, find_in};
use crate::node::Operand;
use crate::value::read::Reading;

/// What is read of a row: an operand, and how.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct GroupKey {
    /// The column as an index of the relation.
    pub(super) column: usize,
    pub(super) operand: Operand,
    pub(super) reading: Reading,
    /// Each element of an array is a value.
    pub(super) elements: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    points: HashMap<Box<[u8]>, Places>,
    pub(super) ranges: Intervals,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.ranges.is_empty()
    }

    pub(super) fn add(&mut self, key: &[u8], place: usize) {
        match self.points.get_mut(key) {
            None => drop(self.points.insert(key.into(), Places::One(place))),
            Some(places) => places.add(place),
        }
    }

    pub(super) fn take(&mut self, key: &[u8], place: usize) {
        if self.points.get_mut(key).is_some_and(|places| places.take(place)) {
            self.points.remove(key);
        }
    }

    fn all(&self, places: &mut Vec<usize>) {
        self.points.values().for_each(|found| found.collect(places));
        self.ranges.all(places);
    }

    fn at(&self, value: &[u8], places: &mut Vec<usize>) {
        if let Some(found) = self.points.get(value) {
            found.collect(places);
        }
        self.ranges.at(value, places);
    }

    /// The predicates that a row with this column can be in; all when the value is not known.
    pub(super) fn find(
        &self,
        key: &GroupKey,
        json: Option<&[u8]>,
        buffer: &mut Vec<u8>,
        places: &mut Vec<usize>,
    ) {
        buffer.clear();
        let read = match find_in(&key.operand, json) {
            Found::Null => return,
            Found::Missing | Found::NullOrJsonNull => return self.all(places),
            Found::Text(datum) => key::write(datum, buffer),
            Found::Json(json) if key.elements => {
                let mut each = |found: Option<crate::value::Datum<'_>>| {
                    buffer.clear();
                    if found.is_some_and(|datum| key::write(datum, buffer)) {
                        self.at(buffer, places);
                    }
                    true
                };
                if key.reading.each(json, &mut each).is_err() {
                    self.all(places);
                }
                return;
            }
            Found::Json(json) => key.reading.read(json).is_ok_and(|datum| key::write(datum, buffer)),
        };
        if read { self.at(buffer, places) } else { self.all(places) }
    }
}
