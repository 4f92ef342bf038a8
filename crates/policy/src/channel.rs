//! Channels: who may be in which, and what he may do there.

use std::collections::BTreeSet;

use walcast_filter::Claims;

use crate::policy::Place;

/// What may be done in a channel by who may be in it: being sent what is said there is always among it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChannelGrant {
    /// Saying something.
    pub publish: bool,
    /// Being shown, and seeing who is.
    pub presence: bool,
}

impl ChannelGrant {
    /// All that there is.
    pub const EVERYTHING: Self = Self { publish: true, presence: true };

    pub(crate) const fn and(self, other: Self) -> Self {
        Self { publish: self.publish || other.publish, presence: self.presence || other.presence }
    }
}

/// Names of channels in a policy: text in which `*` stands for one or more characters and `{claims.name}` for what the token
/// says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ChannelPattern {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(String),
    Claim(Vec<String>),
    Any,
}

/// A channel that a policy is about.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ChannelPolicy {
    pub(crate) place: Place,
    pub(crate) pattern: ChannelPattern,
    pub(crate) grant: ChannelGrant,
}

/// A pattern of which the claims are known.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Bound {
    OneOf(BTreeSet<String>),
    Any,
}

/// What one policy says of one channel, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChannelSaying<'a> {
    /// The policy.
    pub place: Place,
    /// The pattern, as it was written.
    pub pattern: &'a str,
    /// What it allows in channels of that name.
    pub grant: ChannelGrant,
    /// What comes of it.
    pub counts: ChannelCounts,
}

/// Whether what a policy allows is allowed in a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChannelCounts {
    /// It is.
    Yes,
    /// The channel has another name.
    AnotherName,
    /// A claim is missing, or cannot stand in its place: it gives nothing at all.
    NoClaim,
    /// It is a policy of every role, and one of the role itself names the channel.
    Overridden,
}

type Granted = Vec<(Vec<Bound>, ChannelGrant)>;

/// What channels one client may be in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChannelRights {
    /// All: the daemon runs without authentication.
    Everything,
    /// Those that are granted, and no other.
    Granted(ChannelGrants),
}

/// The channels that policies grant to one client.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChannelGrants {
    own: Granted,
    of_every: Granted,
}

impl ChannelRights {
    /// What may be done in a channel; `None`: it may not be joined. Of the policies of the role itself those that name the
    /// channel add up; those of every role count where none of them does.
    #[must_use]
    pub fn of(&self, channel: &str) -> Option<ChannelGrant> {
        let Self::Granted(ChannelGrants { own, of_every }) = self else {
            return Some(ChannelGrant::EVERYTHING);
        };
        let granted = |all: &Granted| {
            let matching = all.iter().filter(|(pattern, _)| matches(pattern, channel));
            matching.map(|(_, grant)| *grant).reduce(ChannelGrant::and)
        };
        granted(own).or_else(|| granted(of_every))
    }
}

impl ChannelGrants {
    pub(crate) fn new(own: &[ChannelPolicy], of_every: &[ChannelPolicy], claims: &Claims) -> Self {
        let bound = |policies: &[ChannelPolicy]| {
            let bind = |policy: &ChannelPolicy| Some((policy.pattern.bind(claims)?, policy.grant));
            policies.iter().filter_map(bind).collect()
        };
        Self { own: bound(own), of_every: bound(of_every) }
    }
}

/// What each of the policies says of a channel. Those that count are those of which [`ChannelRights::of`] makes the grant.
pub(crate) fn sayings<'a>(
    own: &'a [ChannelPolicy],
    of_every: &'a [ChannelPolicy],
    claims: &Claims,
    channel: &str,
) -> Vec<ChannelSaying<'a>> {
    let saying = |policy: &'a ChannelPolicy, is_overridden: bool| {
        let counts = match policy.pattern.bind(claims) {
            None => ChannelCounts::NoClaim,
            Some(bound) if !matches(&bound, channel) => ChannelCounts::AnotherName,
            Some(_) if is_overridden => ChannelCounts::Overridden,
            Some(_) => ChannelCounts::Yes,
        };
        ChannelSaying { place: policy.place, pattern: &policy.pattern.text, grant: policy.grant, counts }
    };
    let mut sayings: Vec<_> = own.iter().map(|policy| saying(policy, false)).collect();
    let is_overridden = sayings.iter().any(|saying| saying.counts == ChannelCounts::Yes);
    sayings.extend(of_every.iter().map(|policy| saying(policy, is_overridden)));
    sayings
}

/// Whether a name is one of the pattern's. Its cost grows with both, whatever the pattern.
fn matches(pattern: &[Bound], name: &str) -> bool {
    // After which bytes of the name the pieces so far can end.
    let mut ends = vec![false; name.len() + 1];
    ends[0] = true;
    for piece in pattern {
        let mut next = vec![false; name.len() + 1];
        match piece {
            Bound::Any => {
                let first = ends.iter().position(|end| *end).unwrap_or(name.len());
                next.iter_mut().skip(first + 1).for_each(|end| *end = true);
            }
            Bound::OneOf(values) => {
                for (at, _) in ends.iter().enumerate().filter(|(_, end)| **end) {
                    let rest = &name.as_bytes()[at..];
                    for value in values.iter().filter(|value| rest.starts_with(value.as_bytes())) {
                        next[at + value.len()] = true;
                    }
                }
            }
        }
        ends = next;
    }
    ends[name.len()]
}

impl ChannelPattern {
    /// For the bearer of these claims; `None` where one of them is missing, or cannot stand in its place.
    fn bind(&self, claims: &Claims) -> Option<Vec<Bound>> {
        let bind = |(index, piece): (usize, &Piece)| match piece {
            Piece::Any => Some(Bound::Any),
            Piece::Text(text) => Some(Bound::OneOf(BTreeSet::from([text.clone()]))),
            Piece::Claim(path) => {
                // With the character that ends it in the pattern a value could reach over to what is another's.
                let before = index.checked_sub(1).and_then(|before| self.text(before)?.chars().last());
                let after = self.text(index + 1).and_then(|text| text.chars().next());
                let ends = |character: char| [before, after].contains(&Some(character));
                let mut values: BTreeSet<String> = claims.texts(path)?.into_iter().collect();
                values.retain(|value| !value.is_empty() && !value.contains(ends));
                (!values.is_empty()).then_some(Bound::OneOf(values))
            }
        };
        self.pieces.iter().enumerate().map(bind).collect()
    }

    fn text(&self, index: usize) -> Option<&str> {
        match self.pieces.get(index)? {
            Piece::Text(text) => Some(text),
            Piece::Claim(_) | Piece::Any => None,
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong, and what to write.
    pub(crate) fn parse(pattern: &str) -> Result<Self, (String, String)> {
        let hint =
            "write a name, in which * stands for any characters and {claims.name} for what the token says";
        let wrong = |what: &str| Err((format!("{pattern:?}: {what}"), hint.to_owned()));
        let (mut pieces, mut rest) = (Vec::new(), pattern);
        while let Some(first) = rest.chars().next() {
            let piece = match first {
                '*' => {
                    rest = rest.trim_start_matches('*');
                    Piece::Any
                }
                '{' => {
                    let Some((inside, after)) = rest[1..].split_once('}') else {
                        return wrong("a { without its }");
                    };
                    let path = inside.strip_prefix("claims.").unwrap_or_default();
                    let path: Vec<String> = path.split('.').map(str::to_owned).collect();
                    if path.iter().any(String::is_empty) {
                        return wrong("between { and } stands claims.name");
                    }
                    rest = after;
                    Piece::Claim(path)
                }
                '}' => return wrong("a } without its {"),
                _ => {
                    let (text, after) = rest.split_at(rest.find(['*', '{', '}']).unwrap_or(rest.len()));
                    rest = after;
                    Piece::Text(text.to_owned())
                }
            };
            pieces.push(piece);
        }
        if pieces.is_empty() {
            return wrong("no channel has an empty name");
        }
        let is_ambiguous = |pair: &[Piece]| match pair {
            [Piece::Claim(_), second] => !matches!(second, Piece::Text(_)),
            [first, Piece::Claim(_)] => !matches!(first, Piece::Text(_)),
            _ => false,
        };
        if pieces.windows(2).any(is_ambiguous) {
            return wrong("a claim stands beside * or another claim, and nobody could tell where it ends");
        }
        Ok(Self { text: pattern.to_owned(), pieces })
    }
}

#[cfg(test)]
mod tests {
    use walcast_filter::Claims;

    use super::{ChannelPattern, matches};

    fn is_in(pattern: &str, claims: &str, name: &str) -> bool {
        let bound = ChannelPattern::parse(pattern).unwrap().bind(&Claims::parse(claims).unwrap());
        bound.is_some_and(|bound| matches(&bound, name))
    }

    #[test]
    fn a_pattern_has_the_names_that_it_says() {
        for (pattern, name, expected) in [
            ("lobby", "lobby", true),
            ("lobby", "lobby2", false),
            ("lobby", "lobb", false),
            ("*", "anything: at all", true),
            ("room:*", "room:", false),
            ("room:*", "room:é", true),
            ("*:a*b", "x:a:b:ab", true),
            ("*:a*b", ":a:b", false),
            ("a**b", "axb", true),
        ] {
            assert_eq!(is_in(pattern, "{}", name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_claim_stands_for_its_value_and_for_no_other() {
        let claims = r#"{"org": 7, "rooms": ["a", "b", null], "app": {"team": "red*"}, "urn": "a:b", "none": null, "object": {}}"#;
        for (pattern, name, expected) in [
            ("room:{claims.org}:*", "room:7:x", true),
            ("room:{claims.org}:*", "room:8:x", false),
            ("room:{claims.org}:*", "room:77:x", false),
            ("room:{claims.rooms}", "room:b", true),
            ("room:{claims.rooms}", "room:c", false),
            ("room:{claims.app.team}", "room:red*", true),
            ("room:{claims.app.team}", "room:reds", false),
            // It would be the pattern of another as well.
            ("user:{claims.urn}", "user:a:b", false),
            ("user/{claims.urn}", "user/a:b", true),
            ("room:{claims.none}", "room:null", false),
            ("room:{claims.none}", "room:", false),
            ("room:{claims.nobody}", "room:", false),
            ("room:{claims.object}", "room:{}", false),
        ] {
            assert_eq!(is_in(pattern, claims, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        for pattern in ["", "a{", "a}", "{org}", "{claims.}", "{claims.a..b}", "{claims.a}*", "*{claims.a}"] {
            let (message, _) = ChannelPattern::parse(pattern).unwrap_err();
            assert!(message.starts_with(&format!("{pattern:?}")), "{message}");
        }
        let long = "*a".repeat(64);
        assert!(!is_in(&long, "{}", &"a".repeat(127)), "and it does not take for ever");
    }
}
