//! What is said in channels, as lines for people. All of it is the word of other clients, so nothing in it reaches the
//! terminal as a command.

use walcast_client::{ChannelMessage, Presence};
use walcast_protocol::{Member, Sender};

/// `room:1  ann (phone-1): {"typing":true}`
pub(super) fn message(message: &ChannelMessage) -> String {
    let who = match (&message.from, message.lsn) {
        (Some(from), _) => name(from),
        (None, Some(lsn)) => format!("the database at {lsn}"),
        (None, None) => "somebody".to_owned(),
    };
    plain(&format!("{}  {who}: {}", message.channel, message.payload.get()))
}

/// A line for each who is there, comes, or goes.
pub(super) fn presence(presence: &Presence) -> Vec<String> {
    let shown = |sign: char, member: &Member| {
        plain(&format!("{}  {sign} {} {}", presence.channel, name(&member.who), member.state.get()))
    };
    let there = presence.members.iter().flatten().map(|member| shown('=', member));
    let left = presence.left.iter().map(|who| plain(&format!("{}  - {}", presence.channel, name(who))));
    let joined = presence.joined.iter().map(|member| shown('+', member));
    there.chain(left).chain(joined).collect()
}

/// Who it is, as far as that is told: the user and what its client calls itself, else what the daemon calls it.
fn name(who: &Sender) -> String {
    let user = who.user.as_deref().unwrap_or(&who.member);
    match &who.client_id {
        Some(client_id) => format!("{user} ({client_id})"),
        None => user.to_owned(),
    }
}

/// Without characters that a terminal takes for commands.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::{message, presence};

    #[test]
    fn who_says_what_and_who_is_there_are_lines_without_commands_for_the_terminal() {
        let said = |text: &str| message(&serde_json::from_str(text).unwrap());
        let ann = r#"{"member":"m7","user":"ann","client_id":"phone"}"#;
        assert_eq!(
            said(&format!(r#"{{"channel":"room","payload":{{"n":1.10}},"from":{ann}}}"#)),
            r#"room  ann (phone): {"n":1.10}"#
        );
        assert_eq!(said(r#"{"channel":"r","payload":1,"from":{"member":"m9"}}"#), "r  m9: 1");
        assert_eq!(said(r#"{"channel":"r","payload":1,"lsn":"0/2A"}"#), "r  the database at 0/2A: 1");
        let evil =
            said("{\"channel\":\"r\",\"payload\":\"\u{9b}2J\u{7f}\",\"from\":{\"member\":\"\\u001b[2J\"}}");
        assert!(!evil.contains(char::is_control), "{evil:?}");
        let text = format!(
            r#"{{"channel":"r","left":[{ann}],"joined":[{{"member":"m9","user":"bob","state":"new"}}]}}"#
        );
        assert_eq!(
            presence(&serde_json::from_str(&text).unwrap()),
            ["r  - ann (phone)", r#"r  + bob "new""#]
        );
    }
}
