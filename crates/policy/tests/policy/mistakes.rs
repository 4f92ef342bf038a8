//! How wrong texts are told.

use walcast_policy::Policies;

fn mistakes(text: &str) -> Vec<String> {
    let mistakes = Policies::parse(text).expect_err("something is wrong");
    mistakes.iter().map(ToString::to_string).collect()
}

#[test]
fn every_mistake_is_reported_in_one_run_with_its_place_and_what_to_do() {
    let text = r#"
[[policies]]
role = "x"

[[policy]]
role = "customer"
table = "orders"
wher = "a = 1"

[[policy]]
table = "public.*"
columns = "id"
where = "customer_id = = claims.sub"

[[policy]]
role = ["a", "b", "", 3]
table = ["public.a", "public.*"]
columns = ["id", "*"]

[[policy]]
role = "b"
table = ["public.a", "public.a"]
where = "a IN (SELECT 1)"

[[policy]]
role = []
where = 3
"#;
    let expected = [
        "line 2: there is no \"policies\" here; begin each policy with [[policy]]",
        "policy 1, line 7: \"orders\" names no table; write schema.table, schema.* or *; there is no default schema",
        "policy 1, line 8: a policy has no \"wher\"; a policy has role, table and, if it is not for everything, columns and where",
        "policy 2, line 10: role is missing; say whose policy it is: role = \"customer\", or \"*\" for every role",
        "policy 2, line 12: columns is not a list; write columns = [\"id\", \"total\"], or leave it away for all columns",
        "policy 2, line 13: where: ",
        "policy 3, line 16: role is empty; name a role, or \"*\" for every role",
        "policy 3, line 16: role is a text or a list of texts, not integer; write it in quotes",
        "policy 3, line 18: \"*\" is no column; leave columns away for all columns",
        "policy 4, line 22: table public.a has a policy for role \"b\" already: policy 3, line 15; leave one of them",
        "policy 4, line 22: table public.a has a policy for role \"b\" already: policy 3, line 15; leave one of them",
        "policy 4, line 23: where: ",
        "policy 5, line 25: table is missing; say what it is about: table = \"public.orders\", \"public.*\" or \"*\"",
        "policy 5, line 26: role is an empty list; name one, or leave the policy away",
        "policy 5, line 27: where is a text, not integer; write where = \"customer_id = claims.sub\", or leave it away",
    ];
    let found = mistakes(text);
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nbut expected\n{expected}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn what_is_not_toml_is_told_with_its_line_and_nothing_is_made_of_what_it_breaks() {
    let found = mistakes("[[policy]]\nrole = 'a'\ntable = public.orders\n");
    assert!(found[0].starts_with("line 3: not TOML: "), "{found:#?}");
    assert_eq!(found.len(), 1, "{found:#?}");
    // An array that swallows the next policy.
    let found = mistakes("[[policy]]\nrole = 'a'\ncolumns = ['id'\n\n[[policy]]\nwher = 'b'\n");
    assert!(found.iter().all(|one| one.contains(": not TOML: ")), "{found:#?}");
    let found = mistakes("policy = 3\n");
    assert_eq!(found, ["line 1: policy is not a list; begin each policy with [[policy]]"]);
    let found = mistakes("[policy]\nrole = 'a'\n");
    assert_eq!(found, ["line 1: policy is not a list; begin each policy with [[policy]]"]);
}

#[test]
fn a_predicate_that_no_claims_can_fill_is_refused_before_anybody_comes() {
    let found = mistakes("[[policy]]\nrole = 'a'\ntable = '*'\nwhere = 'owner LIKE claims.sub'\n");
    assert_eq!(found.len(), 1, "{found:#?}");
}

#[test]
fn two_policies_for_one_table_and_role_are_told_beside_every_other_mistake() {
    let policy = |table: &str| format!("[[policy]]\nrole = 'a'\ntable = {table}\n\n");
    let twice = policy("'public.t'").repeat(2);
    let already = "table public.t has a policy for role \"a\" already: policy";
    // Before and after what is no TOML, and around it.
    for (text, place) in [
        (format!("{twice}{}", policy("public.u")), "policy 2, line 7: "),
        (format!("{}{twice}", policy("public.u")), "policy 3, line 11: "),
        (format!("{0}{1}{0}", policy("'public.t'"), policy("public.u")), "policy 3, line 11: "),
    ] {
        let found = mistakes(&text);
        assert!(found.iter().any(|one| one.contains(": not TOML: ")), "{found:#?}");
        assert!(found.iter().any(|one| one.starts_with(&format!("{place}{already} "))), "{found:#?}");
        assert_eq!(found.len(), 2, "{found:#?}");
    }
    // A name that is none is the same twice.
    let found = mistakes(&policy("'orders'").repeat(2));
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(
        found[2].contains("table \"orders\" has a policy for role \"a\" already: policy 1, line 1"),
        "{found:#?}"
    );
}
