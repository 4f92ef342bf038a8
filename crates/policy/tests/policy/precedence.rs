//! Which policy counts.

use std::collections::BTreeSet;

use proptest::prelude::{Strategy, any, prop, prop_assert_eq, proptest};
use walcast_filter::Claims;
use walcast_model::RelationName;
use walcast_policy::{Policies, Rights};

use super::table::{claims, name, policies};

fn columns(rights: &Rights, table: &str) -> Option<Vec<String>> {
    rights.of(&name(table)).map(|grant| grant.columns.into_iter().flatten().collect())
}

fn one(text: &str) -> Option<Vec<String>> {
    Some(vec![text.to_owned()])
}

fn policy(role: &str, table: &str, column: &str) -> String {
    format!("[[policy]]\nrole = {role:?}\ntable = {table:?}\ncolumns = [{column:?}]\n")
}

#[test]
fn nothing_is_granted_that_no_policy_grants() {
    let none = policies("");
    assert!(none.is_empty());
    assert_eq!(none.rights("*", &claims("{}")), Rights::Granted(std::collections::BTreeMap::new()));
    let some = policies(&policy("clerk", "public.orders", "a"));
    for role in ["", "*", "Clerk", "clerk ", "customer"] {
        assert_eq!(columns(&some.rights(role, &claims("{}")), "public.orders"), None, "{role:?}");
    }
    let clerk = some.rights("clerk", &claims("{}"));
    for table in ["public.Orders", "public.order_lines", "other.orders", "public.\"orders.x\""] {
        assert_eq!(columns(&clerk, table), None, "{table}");
    }
}

#[test]
fn the_own_policy_counts_before_that_of_every_role_and_the_name_before_the_schema_before_all() {
    let text = [
        policy("*", "public.orders", "every orders"),
        policy("*", "*", "every all"),
        policy("*", "audit.*", "every audit"),
        policy("clerk", "public.*", "clerk public"),
        policy("clerk", "public.carts", "clerk carts"),
        policy("admin", "*", "admin all"),
    ]
    .concat();
    let policies = policies(&text);
    let of = |role: &str, table: &str| columns(&policies.rights(role, &claims("{}")), table);
    assert_eq!(of("clerk", "public.carts"), one("clerk carts"));
    // Its own schema says less about the table than the name does, but it is its own.
    assert_eq!(of("clerk", "public.orders"), one("clerk public"));
    assert_eq!(of("clerk", "audit.log"), one("every audit"));
    assert_eq!(of("clerk", "other.t"), one("every all"));
    assert_eq!(of("admin", "public.orders"), one("admin all"));
    assert_eq!(of("nobody", "public.orders"), one("every orders"));
    assert_eq!(of("nobody", "public.carts"), one("every all"));
    // A role that is called as the wildcard is written has nothing of its own.
    assert_eq!(of("*", "public.orders"), one("every orders"));
}

#[test]
fn lists_stand_for_each_of_their_elements() {
    let policies = policies("[[policy]]\nrole = ['a', 'b']\ntable = ['public.t', 'audit.*']\ncolumns = []\n");
    assert_eq!(policies.len(), 1);
    for role in ["a", "b"] {
        for table in ["public.t", "audit.x"] {
            let grant = policies.rights(role, &claims("{}")).of(&name(table)).expect("a grant");
            // An empty list is the key alone, not everything.
            assert_eq!(grant.columns, Some(BTreeSet::new()));
        }
    }
}

#[test]
fn equal_claims_give_equal_rights_and_others_do_not() {
    let policies = policies("[[policy]]\nrole = 'c'\ntable = '*'\nwhere = 'customer_id = claims.sub'\n");
    let of = |json: &str| policies.rights("c", &claims(json));
    assert_eq!(of(r#"{"sub": 1, "iat": 5}"#), of(r#"{"iat": 6, "sub": 1}"#));
    assert_ne!(of(r#"{"sub": 1}"#), of(r#"{"sub": 2}"#));
}

/// Independent of the crate's way: looks through the policies as they were written.
fn expected(written: &[(usize, usize)], role: usize, table: &RelationName) -> Option<usize> {
    let ranks = |pattern: usize| -> Option<u8> {
        match PATTERNS[pattern] {
            "*" => Some(2),
            text => match text.strip_suffix(".*") {
                Some(schema) => (schema == table.schema).then_some(1),
                None => (text == table.to_string()).then_some(0),
            },
        }
    };
    let candidates = written.iter().enumerate().filter_map(|(index, (of, pattern))| {
        let own = match ROLES[*of] {
            "*" => 1,
            name => (name == ROLES[role]).then_some(0)?,
        };
        Some(((own, ranks(*pattern)?), index))
    });
    candidates.min().map(|(_, index)| index)
}

const ROLES: [&str; 3] = ["*", "clerk", "admin"];
const PATTERNS: [&str; 6] = ["*", "a.*", "b.*", "a.x", "a.y", "b.x"];

fn written() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::btree_set((0..ROLES.len(), 0..PATTERNS.len()), 0..12)
        .prop_map(|set| set.into_iter().collect())
}

proptest! {
    #[test]
    fn rights_and_the_deciding_policy_agree_with_a_search_through_what_was_written(
        written in written(), reverse in any::<bool>(), role in 1..ROLES.len(),
    ) {
        let mut written = written;
        if reverse {
            written.reverse();
        }
        let text: String = written.iter().enumerate()
            .map(|(index, (role, pattern))| policy(ROLES[*role], PATTERNS[*pattern], &index.to_string()))
            .collect();
        let policies = policies(&text);
        let rights = policies.rights(ROLES[role], &claims("{}"));
        for table in ["a.x", "a.y", "a.z", "b.x", "b.y", "c.x"] {
            let table = name(table);
            let expected = expected(&written, role, &table);
            let granted = rights.of(&table).map(|grant| grant.columns.unwrap().pop_first().unwrap());
            prop_assert_eq!(&granted, &expected.map(|index| index.to_string()), "{} {:?}", table, written);
            let deciding = policies.deciding(ROLES[role], &table).map(|(_, policy)| policy.place().policy - 1);
            prop_assert_eq!(deciding, expected);
        }
    }

    #[test]
    fn no_text_makes_it_panic_and_a_wrong_text_gives_nothing(text in ".{0,200}") {
        let (Ok(policies) | Err(policies)) = Policies::parse(&text).map_err(|mistakes| {
            assert!(!mistakes.is_empty());
            Policies::default()
        });
        let none: Claims = claims("{}");
        prop_assert_eq!(policies.rights("r", &none).of(&name("a.b")).is_some(), !policies.is_empty());
    }
}
