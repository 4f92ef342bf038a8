//! What a client may do in a channel, by the code that lets it in, and which policies say so.

use walcast_broadcaster::channel_grant;
use walcast_policy::{ChannelCounts, ChannelGrant, ChannelSaying};

use super::access::closed;
use super::report::Stage;
use super::request::{Asker, Bearer, ChannelRequest};

/// The policies' say about a channel, and what it comes to; `None`: it may not be joined.
pub(super) fn explain(request: &ChannelRequest) -> (Vec<Stage>, Option<ChannelGrant>) {
    let ChannelRequest { channel, asker, name_bytes_max } = request;
    let mut stages = match asker {
        Asker::Anybody => {
            vec![Stage::keeps(
                "policy",
                "no policies are in force: everybody may do everything in any channel",
            )]
        }
        Asker::Closed => vec![closed()],
        Asker::Bearer(bearer) => said(bearer, channel),
    };
    match channel_grant(channel, &asker.channels(), *name_bytes_max) {
        Ok(grant) => (stages, Some(grant)),
        Err(refusal) => {
            let message = refusal.to_string();
            // Where no policy grants it that was said, with the reasons.
            if asker.channels().of(channel).is_some() {
                stages.push(Stage::drops("name", message));
            }
            (stages, None)
        }
    }
}

/// What each policy says that names the channel, or would if the token said more.
fn said(bearer: &Bearer, channel: &str) -> Vec<Stage> {
    let Bearer { role, policies, path, claims, .. } = bearer;
    let path = path.display();
    let sayings = policies.about_channel(role, claims, channel);
    let mut stages: Vec<Stage> =
        sayings.iter().filter_map(|saying| stage(saying, &path.to_string())).collect();
    if !sayings.iter().any(|saying| saying.counts == ChannelCounts::Yes) {
        let message = format!("no policy of {path} grants role {role:?} the channel {channel:?} (forbidden)");
        let hint = format!("add one: [[policy]] role = {role:?}, channel = {channel:?}");
        stages.push(Stage::drops("policy", message).hint(hint));
    }
    stages
}

fn stage(saying: &ChannelSaying<'_>, path: &str) -> Option<Stage> {
    let ChannelSaying { place, pattern, grant, counts } = saying;
    let about = format!("{place} of {path} (for {pattern:?})");
    match counts {
        ChannelCounts::Yes => {
            let more = match grant {
                ChannelGrant { publish: true, presence: true } => ", publishing and presence",
                ChannelGrant { publish: true, presence: false } => " and publishing",
                ChannelGrant { publish: false, presence: true } => " and presence",
                ChannelGrant { publish: false, presence: false } => " alone",
            };
            Some(Stage::keeps("policy", format!("{about} grants joining{more}")))
        }
        ChannelCounts::Overridden => {
            let message = format!("{about} does not count: the role has one of its own for this channel");
            Some(Stage::notes("policy", message))
        }
        ChannelCounts::NoClaim => {
            let message = format!(
                "{about} gives nothing: a claim of it is missing, empty, or holds the character beside it in the pattern"
            );
            Some(Stage::notes("policy", message))
        }
        ChannelCounts::AnotherName => None,
    }
}
