//! What the documentation shows is what the crate reads.

use super::table::{claims, name, policies};

#[test]
fn the_example_of_the_operations_guide_means_what_it_says() {
    let guide = include_str!("../../../../docs/operations.md");
    let (_, rest) = guide.split_once("```toml\n# policies.toml\n").expect("the example");
    let (example, _) = rest.split_once("```").expect("its end");
    let policies = policies(example);
    let may = |role: &str, table: &str| policies.rights(role, &claims("{}")).of(&name(table)).is_some();
    assert!(may("customer", "public.orders") && !may("customer", "public.order_lines"));
    assert!(may("manager", "public.order_lines") && may("admin", "any.thing"));
    assert!(may("customer", "public.prices") && !may("nobody", "public.orders"));
    let hidden = policies.rights("admin", &claims("{}")).of(&name("public.card_numbers")).expect("a grant");
    let rows = hidden.rows.expect("rows").bind(&super::table::orders()).expect("it binds");
    assert_eq!(rows.constant(), Some(walcast_filter::Verdict::False));
}

#[test]
fn the_example_of_channels_means_what_it_says() {
    let guide = include_str!("../../../../docs/operations.md");
    let (_, rest) = guide.split_once("### Channels\n").expect("the section");
    let (_, rest) = rest.split_once("```toml\n").expect("the example");
    let policies = policies(rest.split_once("```").expect("its end").0);
    let ann = policies.channel_rights("member", &claims(r#"{"sub": "ann", "org": 7}"#));
    let may = |channel: &str| ann.of(channel).is_some();
    assert!(may("room:7:hall") && may("user:ann") && !may("room:8:hall") && !may("user:bob"));
    let news = ann.of("news").expect("everybody's");
    assert!(!news.publish && !news.presence);
}
