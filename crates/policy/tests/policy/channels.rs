//! Which channels policies grant, and to whom.

use walcast_policy::{ChannelCounts, ChannelGrant, ChannelRights, Policies};

use super::table::{claims, policies};

const TEXT: &str = r#"
[[policy]]
role = "user"
channel = ["room:{claims.org}:*", "user:{claims.sub}"]

[[policy]]
role = "user"
channel = "news"
allow = []

[[policy]]
role = "user"
channel = "n*"
allow = ["presence"]

[[policy]]
role = "*"
channel = ["news", "lobby"]
allow = "publish"

[[policy]]
role = "user"
table = "public.orders"
"#;

#[test]
fn those_of_the_role_add_up_and_those_of_every_role_count_where_it_has_none() {
    let policies = policies(TEXT);
    let ann = policies.channel_rights("user", &claims(r#"{"sub": "ann", "org": 1}"#));
    for channel in ["room:1:chat", "user:ann"] {
        assert_eq!(ann.of(channel), Some(ChannelGrant::EVERYTHING), "{channel}");
    }
    for channel in
        ["room:2:chat", "room:1:", "user:bob", "user:", "user:ann2", "", "*", "room:*", "{claims.sub}"]
    {
        assert_eq!(ann.of(channel), None, "{channel}");
    }
    let grant = |publish, presence| Some(ChannelGrant { publish, presence });
    assert_eq!(ann.of("news"), grant(false, true), "of its own alone, which add up");
    assert_eq!(ann.of("lobby"), grant(true, false));
    // Without claims, as the anonymous come; and in a role of which nothing is said.
    for role in ["user", "guest", "*"] {
        let rights = policies.channel_rights(role, &claims("{}"));
        assert_eq!(rights.of("room::x"), None);
        assert_eq!(rights.of("lobby"), grant(true, false));
        assert_eq!(rights.of("news"), if role == "user" { grant(false, true) } else { grant(true, false) });
    }
    // What is said of tables says nothing of channels.
    assert_eq!(policies.channel_rights("user", &claims("{}")).of("public.orders"), None);
}

#[test]
fn what_each_policy_says_of_a_channel_adds_up_to_what_is_granted() {
    let policies = policies(TEXT);
    let said = |role: &str, of: &str, channel: &str| {
        let (claims, rights) = (claims(of), policies.channel_rights(role, &claims(of)));
        let sayings = policies.about_channel(role, &claims, channel);
        let counting = sayings.iter().filter(|saying| saying.counts == ChannelCounts::Yes);
        let sum = counting.map(|saying| saying.grant).reduce(|one, other| ChannelGrant {
            publish: one.publish || other.publish,
            presence: one.presence || other.presence,
        });
        assert_eq!(sum, rights.of(channel), "{role} {channel}");
        let words = |counts| match counts {
            ChannelCounts::Yes => "yes",
            ChannelCounts::AnotherName => "-",
            ChannelCounts::NoClaim => "no claim",
            ChannelCounts::Overridden => "overridden",
        };
        let all = sayings.iter().map(|saying| (saying.place.policy, saying.pattern, words(saying.counts)));
        all.filter(|(_, _, words)| *words != "-")
            .map(|(policy, pattern, words)| format!("{policy} {pattern} {words}"))
            .collect::<Vec<_>>()
    };
    let ann = r#"{"sub": "ann", "org": 1}"#;
    assert_eq!(said("user", ann, "news"), ["2 news yes", "3 n* yes", "4 news overridden"]);
    assert_eq!(said("user", ann, "lobby"), ["4 lobby yes"]);
    assert_eq!(said("user", ann, "user:ann"), ["1 user:{claims.sub} yes"]);
    assert_eq!(
        said("user", r#"{"sub": "a:b"}"#, "user:a"),
        ["1 room:{claims.org}:* no claim", "1 user:{claims.sub} no claim"]
    );
    assert_eq!(said("guest", "{}", "user:ann"), [] as [&str; 0]);
    assert_eq!(policies.channel_patterns(), 6);
    assert_eq!(ChannelRights::Everything.of("x"), Some(ChannelGrant::EVERYTHING));
}

#[test]
fn a_claim_that_would_reach_over_to_another_gives_nothing() {
    let policies = policies(TEXT);
    for sub in ["ann:x", "*", "", "{claims.org}"] {
        let claims = claims(&serde_json::json!({"sub": sub, "org": sub}).to_string());
        let rights = policies.channel_rights("user", &claims);
        for channel in ["user:ann", "user:ann:x", "room:1:x", "user:"] {
            assert_eq!(rights.of(channel), None, "{sub} {channel}");
        }
    }
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let text = r#"
[[policy]]
role = "a"
channel = ["room:{org}", "b"]
where = "a = 1"
allow = ["publish", "join"]

[[policy]]
channel = "c"
table = "public.t"
"#;
    let mistakes = Policies::parse(text).expect_err("something is wrong");
    let found: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    let expected = [
        "policy 1, line 4: \"room:{org}\": between { and } stands claims.name; write a name",
        "policy 1, line 5: a policy about channels has no where; write a policy of its own for the table",
        "policy 1, line 6: allow has no \"join\"; write \"publish\" and \"presence\", or [] for joining alone",
        "policy 2, line 8: role is missing; say whose policy it is",
        "policy 2, line 10: a policy about channels has no table; write a policy of its own for the table",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nbut expected\n{expected}");
    }
}
