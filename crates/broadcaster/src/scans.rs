//! Conditions that each change of their table is looked at for, whatever values it has: so many for each user, since they
//! cost everybody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use walcast_filter::{Predicate, Scan};
use walcast_model::{Oid, Relation};
use walcast_protocol::ErrorCode;

use crate::metrics as names;
use crate::refusal::Refusal;
use crate::turns::Applicant;

/// How often a user has each. The same one for several subscriptions is looked at once.
type OfUser = HashMap<(Oid, Scan), usize>;

/// All that are in use. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Scans {
    /// `scans_per_user_max`.
    each_max: usize,
    // Held for a look-up.
    by_user: Arc<Mutex<HashMap<Applicant, OfUser>>>,
}

/// Those of one subscription; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Scanning {
    scans: Scans,
    of: Applicant,
    held: Vec<(Oid, Scan)>,
}

impl Scans {
    pub(crate) fn new(each_max: usize) -> Self {
        Self { each_max, by_user: Arc::default() }
    }

    /// Of a subscription that has none yet.
    pub(crate) const fn by(self, of: Applicant) -> Scanning {
        Scanning { scans: self, of, held: Vec::new() }
    }
}

impl Scanning {
    /// Whose they are.
    pub(crate) const fn applicant(&self) -> &Applicant {
        &self.of
    }

    /// Has those of one table's filter, in place of what it had for that table.
    ///
    /// # Errors
    /// When its user would have too many; it has none for that table then.
    pub(crate) fn replace(&mut self, relation: &Relation, filter: &Arc<Predicate>) -> Result<(), Refusal> {
        let (oid, wanted) = (relation.oid(), Scan::of(filter));
        self.give_back(Some(oid));
        if wanted.is_empty() {
            return Ok(());
        }
        let wanted: Vec<_> = wanted.into_iter().map(|scan| (oid, scan)).collect();
        let max = self.scans.each_max;
        let mut by_user = self.scans.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        let had = by_user.entry(self.of.clone()).or_default();
        let new = wanted.iter().filter(|scan| !had.contains_key(scan)).count();
        if had.len() + new > max {
            if had.is_empty() {
                by_user.remove(&self.of);
            }
            return Err(too_many(relation, max));
        }
        for scan in &wanted {
            *had.entry(scan.clone()).or_default() += 1;
        }
        drop(by_user);
        metrics::gauge!(names::SCANS).increment(new as f64);
        self.held.extend(wanted);
        Ok(())
    }

    /// Has none any more.
    pub(crate) fn clear(&mut self) {
        self.give_back(None);
    }

    /// Those of one table, or all.
    fn give_back(&mut self, of_table: Option<Oid>) {
        let is_over = |(oid, _): &mut (Oid, Scan)| of_table.is_none_or(|table| table == *oid);
        let over: Vec<_> = self.held.extract_if(.., is_over).collect();
        if over.is_empty() {
            return;
        }
        let mut by_user = self.scans.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(had) = by_user.get_mut(&self.of) else { return };
        let before = had.len();
        for scan in &over {
            if let Some(count) = had.get_mut(scan) {
                *count -= 1;
                if *count == 0 {
                    had.remove(scan);
                }
            }
        }
        metrics::gauge!(names::SCANS).decrement((before - had.len()) as f64);
        if had.is_empty() {
            by_user.remove(&self.of);
        }
    }
}

impl Drop for Scanning {
    fn drop(&mut self) {
        self.clear();
    }
}

fn too_many(relation: &Relation, max: usize) -> Refusal {
    metrics::counter!(names::SCANS_REFUSED).increment(1);
    let name = relation.name();
    let message = format!(
        "where of {name}: conditions of one user that each change has to be looked at for (scans_per_user_max): at most {max}"
    );
    let hint = "compare a column with a value (=, IN, BETWEEN, <), joined with AND to the rest; or filter by the same condition";
    Refusal::new(ErrorCode::LimitExceeded, message).hint(hint)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use walcast_filter::{Filter, Predicate};
    use walcast_model::Relation;
    use walcast_protocol::ErrorCode;

    use super::Scans;
    use crate::testing::{full, schema, table};
    use crate::turns::Applicant;

    fn filter(relation: &Arc<Relation>, text: &str) -> Arc<Predicate> {
        Arc::new(Filter::parse(text).unwrap().bind(&schema(Arc::clone(relation))).unwrap())
    }

    #[test]
    fn a_user_has_so_many_and_the_same_twice_is_one() {
        let relation = full(&table("f", &["note"]));
        let scans = Scans::new(2);
        let user = |name: &str| Applicant::User(name.into());
        let slow = |word: &str| filter(&relation, &format!("note LIKE '%{word}%'"));
        let (mut one, mut two, mut other) =
            (scans.clone().by(user("ada")), scans.clone().by(user("ada")), scans.clone().by(user("bob")));
        one.replace(&relation, &slow("a")).unwrap();
        two.replace(&relation, &slow("a")).unwrap();
        let mut third = scans.clone().by(user("ada"));
        third.replace(&relation, &slow("b")).unwrap();
        let mut fourth = scans.clone().by(user("ada"));
        let refusal = fourth.replace(&relation, &slow("c")).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::LimitExceeded);
        assert!(refusal.message.contains("scans_per_user_max"), "{refusal}");
        // What an index finds costs nobody else anything, and what is another user's is that one's.
        fourth.replace(&relation, &filter(&relation, "id = '7' AND note LIKE '%c%'")).unwrap();
        other.replace(&relation, &slow("c")).unwrap();
        // Another definition comes in place of the one before.
        third.replace(&relation, &slow("c")).unwrap();
        drop((one, third));
        fourth.replace(&relation, &slow("d")).unwrap();
        two.clear();
        drop((fourth, other));
        assert!(scans.by_user.lock().unwrap().is_empty());
    }
}
