//! Tokens whose bearers would like to have more than they were granted.

use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::json;
use walcast_filter::Verdict;
use walcast_model::Column;

use super::table::{claims, name, orders, policies, predicate};

const BY_OWNER: &str = "[[policy]]\nrole = 'c'\ntable = 'public.orders'\nwhere = 'owner = claims.sub'\n";
const BY_ID: &str = "[[policy]]\nrole = 'c'\ntable = 'public.orders'\nwhere = 'customer_id = claims.sub'\n";

fn row(owner: &str) -> Vec<u8> {
    json!({"id": 1, "customer_id": 7, "owner": owner, "tags": null, "data": null}).to_string().into_bytes()
}

#[test]
fn a_claim_with_quotes_is_a_value_and_nothing_else() {
    for evil in ["' OR '1'='1", "ann' OR TRUE --", "\\' OR 1=1", "$$ OR TRUE", "claims.sub", "%"] {
        let rights = policies(BY_OWNER).rights("c", &claims(&json!({ "sub": evil }).to_string()));
        let predicate = predicate(&rights).expect("rows").expect("it binds");
        assert_eq!(predicate.evaluate(&row("ann")), Verdict::False, "{evil:?}: {}", predicate.to_sql());
        assert_eq!(predicate.evaluate(&row(evil)), Verdict::True, "{evil:?}");
    }
    for evil in ["7 OR TRUE", "7; --", "0x7 or 1", "NaN", "", "[7]"] {
        let rights = policies(BY_ID).rights("c", &claims(&json!({ "sub": evil }).to_string()));
        // No bigint: whoever applies it denies the table.
        assert!(predicate(&rights).expect("rows").is_err(), "{evil:?}");
    }
}

#[test]
fn a_claim_that_is_not_there_gives_no_row() {
    for text in [
        "owner = claims.sub",
        "owner <> claims.sub",
        "NOT owner = claims.sub",
        "owner LIKE 'a%' AND owner = claims.sub",
        "owner = ANY (claims.sub)",
        "owner <> ALL (claims.sub)",
        "tags && claims.sub",
        "data @> claims.sub",
        "owner = claims.sub.a.b",
    ] {
        for json in
            ["{}", r#"{"sub": null}"#, r#"{"SUB": "ann"}"#, r#"{"sub ": "ann"}"#, r#"{"": {"sub": "ann"}}"#]
        {
            let text = format!("[[policy]]\nrole = 'c'\ntable = '*'\nwhere = \"\"\"{text}\"\"\"\n");
            let rights = policies(&text).rights("c", &claims(json));
            let predicate = predicate(&rights).expect("rows").expect("it binds");
            for owner in ["ann", "", "null"] {
                let verdict = predicate.evaluate(&row(owner));
                assert!(!matches!(verdict, Verdict::True | Verdict::Unknown(_)), "{text} {json} {verdict:?}");
            }
        }
    }
}

#[test]
fn a_claim_that_cannot_be_bound_denies_its_table_and_does_not_fall_back_to_a_wider_policy() {
    let text = format!(
        "{BY_OWNER}\n[[policy]]\nrole = 'c'\ntable = 'public.*'\n\n[[policy]]\nrole = '*'\ntable = '*'\n"
    );
    let policies = policies(&text);
    for evil in [r#"{"sub": ["ann"]}"#, r#"{"sub": {"a": 1}}"#, r#"{"sub": [["ann"]]}"#, r#"{"sub": []}"#] {
        let rights = policies.rights("c", &claims(evil));
        assert_eq!(rights.of(&name("public.orders")), None, "{evil}");
        let denied = rights.denied(&name("public.orders")).expect(evil);
        assert_eq!((denied.place().policy, denied.place().line), (1, 1));
        assert!(denied.to_string().contains("claim sub"), "{denied}");
        assert!(!denied.to_string().contains("ann"), "{denied}");
        assert!(rights.of(&name("public.carts")).is_some());
        assert!(rights.denied(&name("public.carts")).is_none());
    }
    // Denied for different reasons, and yet alike: nothing else of their rights differs.
    assert_eq!(
        policies.rights("c", &claims(r#"{"sub": ["a"]}"#)),
        policies.rights("c", &claims(r#"{"sub": [["b"]]}"#))
    );
    assert_ne!(policies.rights("c", &claims(r#"{"sub": ["a"]}"#)), policies.rights("c", &claims("{}")));
}

#[test]
fn columns_that_are_not_granted_are_not_shown_and_the_key_is() {
    let text = "[[policy]]\nrole = 'c'\ntable = 'public.orders'\ncolumns = ['owner']\n";
    let grant = policies(text).rights("c", &claims("{}")).of(&name("public.orders")).expect("a grant");
    let schema = orders();
    let shown: Vec<&str> = schema
        .relation()
        .columns()
        .iter()
        .filter(|column| grant.shows(column))
        .map(|column: &Column| column.name.as_str())
        .collect();
    assert_eq!(shown, ["id", "owner"]);
}

/// Any claim at all.
fn claim() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        "[ -~é'\"\\\\]{0,12}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_a_token_says_only_the_row_of_its_bearer_is_had(sub in claim(), owner in "[ -~é'\"\\\\]{0,12}") {
        let rights = policies(BY_OWNER).rights("c", &claims(&json!({ "sub": sub }).to_string()));
        let Some(_) = rights.of(&name("public.orders")) else {
            prop_assert!(sub.is_array() || sub.is_object());
            return Ok(());
        };
        let had = match predicate(&rights).expect("rows") {
            Ok(predicate) => predicate.evaluate(&row(&owner)) == Verdict::True,
            Err(_) => false,
        };
        let text = match &sub {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Null => None,
            other => Some(other.to_string()),
        };
        prop_assert_eq!(had, text.as_ref() == Some(&owner));
    }
}
