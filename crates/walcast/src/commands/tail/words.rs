//! What people at `walcast tail` are told: the daemon's codes and the client's errors, with the flags that help. Hints of the
//! daemon are for the authors of clients where they speak of messages.

use std::fmt::Display;
use std::time::Duration;

use walcast_client::{Error, ErrorCode, ErrorKind, ErrorMessage, SourceStatus, Status};

use crate::cli::TailArgs;
use crate::output::{Failure, USAGE};

const WITH_TOKEN: &str = "give it with --token, with --token-file, or in WALCAST_TOKEN";
const ANOTHER_TOKEN: &str = "give another token with --token, with --token-file, or in WALCAST_TOKEN";
const A_TOKEN: &str = "give a token with --token, with --token-file, or in WALCAST_TOKEN";
const WHERE: &str = "--url (or WALCAST_URL) says where `walcast serve` listens, such as ws://127.0.0.1:4700 or wss://feed.example.org";

/// What was given on the command line, as far as advice depends on it.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Words {
    has_token: bool,
}

impl Words {
    pub(super) fn of(args: &TailArgs) -> Self {
        let in_url = ["?token=", "&token="].iter().any(|parameter| args.url.contains(parameter));
        Self { has_token: args.token.is_some() || args.token_file.is_some() || in_url }
    }

    /// The client is over, or cannot be had.
    pub(super) fn failure(self, error: &Error) -> Failure {
        match error.kind() {
            ErrorKind::Argument => Failure { code: USAGE, ..Failure::because(error) },
            ErrorKind::NoToken => {
                Failure::new("the daemon serves nobody without a token").hint(Some(WITH_TOKEN.to_owned()))
            }
            // What is in front of the daemon refuses too, and its words say which of the two it was.
            ErrorKind::Unauthorized => {
                let said = match error.answer() {
                    Some(answer) if self.has_token => {
                        format!("the daemon does not take this token: {}", answer.message)
                    }
                    Some(answer) => format!("{}: {}", answer.code, answer.message),
                    None => error.to_string(),
                };
                Failure::new(said).hint(Some(self.token_hint().to_owned()))
            }
            ErrorKind::Protocol => Failure::because(error).hint(Some(WHERE.to_owned())),
            ErrorKind::TooBig => Failure::new("a row is larger than tail takes")
                .hint(Some("name fewer columns with --columns".to_owned())),
            _ => match error.answer() {
                Some(answer) => self.refused(answer),
                None => Failure::because(error),
            },
        }
    }

    /// The daemon refuses what was asked for.
    pub(super) fn refused(self, error: &ErrorMessage) -> Failure {
        let oldest =
            error.oldest.map(|oldest| format!("; the oldest cursor is {oldest}")).unwrap_or_default();
        Failure::new(format!("{}: {}{oldest}", error.code, error.message)).hint(self.hint(error))
    }

    /// The daemon cannot give it now, which passes.
    pub(super) fn asking_again(self, error: &ErrorMessage, delay: Duration) -> String {
        let hint = self.hint(error).map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("{}: {}; asking again in {}{hint}", error.code, error.message, short(delay))
    }

    const fn token_hint(self) -> &'static str {
        if self.has_token { ANOTHER_TOKEN } else { A_TOKEN }
    }

    fn hint(self, error: &ErrorMessage) -> Option<String> {
        let said = error.hint.as_deref();
        let ours = match error.code {
            ErrorCode::CursorTooOld => {
                const START: &str = "--from start begins with the rows as they are now";
                let rest = |oldest| format!("--from {oldest} begins with what can still be had, {START}");
                return Some(error.oldest.map_or_else(|| START.to_owned(), rest));
            }
            ErrorCode::CursorAhead | ErrorCode::FeedChanged => {
                "--from start begins with the rows as they are now, --from latest with what happens from now on"
            }
            ErrorCode::Unauthorized => self.token_hint(),
            ErrorCode::UnknownTable => match said.and_then(|said| said.strip_prefix("ask for ")) {
                Some(others) => return Some(format!("name {others}")),
                None => {
                    return Some(
                        said.unwrap_or("`walcast doctor`, on the server, says what is published").to_owned(),
                    );
                }
            },
            // It is asked for again by itself.
            ErrorCode::NotReady | ErrorCode::Internal => {
                let rest = said?.strip_prefix("ask again").map_or(said?, |rest| {
                    rest.trim_start_matches(" after a while").trim_start_matches([';', ',', ' '])
                });
                return Some(rest.to_owned()).filter(|rest| !rest.is_empty());
            }
            _ => return said.map(str::to_owned),
        };
        Some(ours.to_owned())
    }
}

/// A URL without what may be a token, or a password.
pub(super) fn shown_place(url: &str) -> String {
    let place = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = place.split_once("://").unwrap_or_default();
    let (server, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = server.rsplit_once('@').map_or(server, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// Nobody listens where the daemon was expected from the beginning.
pub(super) fn not_there(reason: &str, url: &str) -> Failure {
    let hint = "start the daemon with `walcast serve`, let --url (or WALCAST_URL) say where it listens, or have it \
                waited for with --wait";
    Failure::new(format!("{reason} (--url {})", shown_place(url))).hint(Some(hint.to_owned()))
}

/// There is no token from the beginning.
pub(super) fn no_token(error: impl Display) -> Failure {
    let hint = "let --token-file name a file that holds the token and that this user may read, or give the token with --token or in WALCAST_TOKEN";
    Failure { code: USAGE, ..Failure::new(error.to_string()).hint(Some(hint.to_owned())) }
}

/// The connection is lost, or could not be made: the attempts that failed are counted. Whether there was one, and whether
/// it is known that a daemon listens there, say what else is told.
pub(super) fn connecting_again(
    reason: &str,
    delay: Duration,
    attempt: u32,
    (was_connected, is_known): (bool, bool),
) -> String {
    // The loss itself is no attempt.
    let failed = attempt.saturating_sub(u32::from(was_connected));
    let counted = if failed > 0 { format!(" (attempt {failed})") } else { String::new() };
    let again = format!("{reason}{counted}; connecting again in {}", short(delay));
    if attempt > 1 {
        return again;
    }
    // Once. Where it listens is only a guess.
    let place = if is_known { String::new() } else { format!("\nhint: {WHERE}") };
    format!("{again}, and so on until it succeeds; Ctrl-C ends it{place}")
}

/// How the daemon's connection to its source is doing; what it says of it is left as it is, since it names tables and SQL.
pub(super) fn source(status: &Status) -> String {
    let state = match status.state {
        SourceStatus::Starting => "source starting",
        SourceStatus::Streaming => "source streaming",
        SourceStatus::Interrupted => "source interrupted",
        _ => "source in a state that this walcast does not know",
    };
    let said = [status.message.as_deref(), status.hint.as_deref()];
    said.into_iter().flatten().fold(state.to_owned(), |line, text| format!("{line}: {text}"))
}

/// A wait as people say it.
fn short(delay: Duration) -> String {
    format!("{:.1} s", delay.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use walcast_client::{Client, ErrorCode, ErrorKind, ErrorMessage};

    use super::{Words, connecting_again, not_there, source};

    fn told(code: ErrorCode, hint: &str) -> String {
        let error = ErrorMessage { hint: Some(hint.to_owned()), ..ErrorMessage::new(code, "m") };
        Words::default().refused(&error).message
    }

    #[test]
    fn where_nobody_is_is_told_without_what_is_secret() {
        for (url, shown) in [
            (
                "wss://ada:pass@proxy.example/v1/stream?access_token=t",
                "(--url wss://proxy.example/v1/stream)",
            ),
            ("ws://127.0.0.1:4700", "(--url ws://127.0.0.1:4700)"),
            ("ws://[::1]:4700/a@b", "(--url ws://[::1]:4700/a@b)"),
        ] {
            let told = not_there("nobody is there", url).message;
            assert!(
                told.contains(shown) && !told.contains("pass") && !told.contains("access_token"),
                "{told}"
            );
        }
    }

    #[test]
    fn hints_name_flags_and_not_messages_of_the_protocol() {
        let again = "subscribe without a cursor for an initial sync";
        for (code, hint, flag) in [
            (ErrorCode::CursorTooOld, again, "hint: --from start"),
            (ErrorCode::CursorAhead, again, "--from start"),
            (ErrorCode::FeedChanged, again, "--from latest"),
            (ErrorCode::Unauthorized, "send {\"type\":\"auth\"}", "--token-file"),
            (ErrorCode::UnknownTable, "ask for public.a", "hint: name public.a"),
            (ErrorCode::BadFilter, "write x = 1", "hint: write x = 1"),
            (ErrorCode::Internal, "ask again; the daemon's log has the cause", "hint: the daemon's log"),
            (ErrorCode::NotReady, "GRANT SELECT ON t TO walcast", "hint: GRANT SELECT"),
        ] {
            let told = told(code, hint);
            assert!(told.contains(flag) && !told.contains("subscribe"), "{told}");
        }
        assert_eq!(told(ErrorCode::NotReady, "ask again after a while"), "not_ready: m");
        let oldest = Some("16/A0:3".parse().unwrap());
        let error = ErrorMessage { oldest, ..ErrorMessage::new(ErrorCode::CursorTooOld, "m") };
        let told = Words::default().refused(&error).message;
        let expected = "hint: --from 16/A0:3 begins with what can still be had, --from start";
        assert!(told.contains(expected), "{told}");
    }

    #[tokio::test]
    async fn what_a_proxy_refuses_is_told_in_its_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/v1/stream", listener.local_addr().unwrap());
        let proxy = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let answer = "HTTP/1.1 403 Forbidden\r\nServer: gate\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let mut client = Client::builder(&url).build().unwrap();
        let error = client.next().await.unwrap().unwrap_err();
        proxy.await.unwrap();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        for has_token in [false, true] {
            let said = Words { has_token }.failure(&error).message;
            assert!(said.contains("403 Forbidden") && said.contains("the server is gate"), "{said}");
            assert!(said.contains("--token-file") && !said.contains("the daemon"), "{said}");
            assert_eq!(said.contains("\nhint: give another token with --token"), has_token, "{said}");
        }
    }

    #[test]
    fn what_is_said_of_the_source_keeps_its_capitals() {
        let status = r#"{"state":"interrupted","message":"no table \"Orders\"","hint":"GRANT SELECT ON \"Orders\" TO Feed"}"#;
        let told = source(&serde_json::from_str(status).unwrap());
        assert_eq!(told, r#"source interrupted: no table "Orders": GRANT SELECT ON "Orders" TO Feed"#);
        assert_eq!(source(&serde_json::from_str(r#"{"state":"streaming"}"#).unwrap()), "source streaming");
    }

    #[test]
    fn a_lost_connection_is_told_with_what_is_tried_next_and_when() {
        let wait = Duration::from_millis(1234);
        let lost = "gone; connecting again in 1.2 s, and so on until it succeeds; Ctrl-C ends it";
        assert_eq!(connecting_again("gone", wait, 1, (true, true)), lost);
        assert_eq!(
            connecting_again("refused", wait, 2, (true, true)),
            "refused (attempt 1); connecting again in 1.2 s"
        );
        let first = connecting_again("nobody there", wait, 1, (false, false));
        assert!(
            first.starts_with("nobody there (attempt 1); connecting again in 1.2 s, and so on"),
            "{first}"
        );
        assert!(first.contains("\nhint: --url (or WALCAST_URL)"), "{first}");
        let second = connecting_again("nobody there", wait, 2, (false, false));
        assert_eq!(second, "nobody there (attempt 2); connecting again in 1.2 s");
    }
}
