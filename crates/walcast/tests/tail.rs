//! `walcast tail` at what is no walcast, as a process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use walcast_testkit::output_of;

fn tail(url: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walcast"));
    command.args(["tail", "--url", url]).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("walcast does not start: {error}"))
}

/// A server that answers every request in the same way.
fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a socket");
            let read = stream.read(&mut [0; 4096]).expect("a socket");
            assert!(read > 0);
            stream.write_all(answer.as_bytes()).expect("a socket");
        }
    });
    address.to_string()
}

#[test]
fn a_web_server_is_named_with_what_it_answered_and_the_flag_that_helps() {
    let address = server("HTTP/1.1 404 Not Found\r\nserver: nginx\r\ncontent-length: 0\r\n\r\n");
    let output = tail(&format!("ws://{address}/feed?token=secret")).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = format!(
        "walcast: ws://{address}/feed is no walcast, or another path of its server (404 Not Found): the server is nginx\nhint: --url (or WALCAST_URL) says where"
    );
    assert!(output.status.code() == Some(1) && said.starts_with(&expected), "{said}");
    assert!(!said.contains("secret") && output.stdout.is_empty(), "{said}");
}

#[test]
fn a_server_that_hangs_up_is_tried_again_with_the_reason_and_when() {
    let mut child = tail(&format!("ws://{}", server("")));
    let said = BufReader::new(child.stderr.take().unwrap());
    let lines: Vec<String> = said.lines().take(3).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines[0].contains("closes it without an answer (attempt 1); connecting again in "), "{lines:?}");
    assert!(lines[0].ends_with("; Ctrl-C ends it") && lines[1].starts_with("hint: --url"), "{lines:?}");
    assert!(lines[2].contains("(attempt 2); connecting again in "), "{lines:?}");
}

/// Where nobody listens.
const NOBODY: &str = "ws://127.0.0.1:1/v1/stream?token=secret";

#[test]
fn a_daemon_that_is_not_there_ends_it_with_the_url_the_cause_and_what_to_do() {
    let output = output_of(tail(NOBODY), "tail");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{said}");
    assert!(said.starts_with("walcast: no connection to 127.0.0.1:1: Connection refused"), "{said}");
    for words in
        ["(--url ws://127.0.0.1:1/v1/stream)", "hint: start the daemon with `walcast serve`", "--wait"]
    {
        assert!(said.contains(words), "{said}");
    }
    assert!(!said.contains("secret") && said.lines().count() == 2, "{said}");
}

#[test]
fn a_daemon_that_is_waited_for_is_tried_again_and_again_and_every_attempt_has_its_number() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_walcast"));
    child.args(["tail", "--wait", "--url", NOBODY]).env_clear().stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let said = BufReader::new(child.stderr.take().unwrap());
    let lines: Vec<String> = said.lines().take(4).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let numbered: Vec<&String> = lines.iter().filter(|line| line.contains("no connection to")).collect();
    assert!(lines[1].starts_with("hint: ") && numbered.len() == 3, "{lines:?}");
    for (line, number) in numbered.iter().zip(1..) {
        assert!(line.contains(&format!(" (attempt {number}); connecting again in ")), "{lines:?}");
    }
}

#[test]
fn a_file_of_the_token_that_cannot_be_read_ends_it_at_once_with_its_name() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walcast"));
    command.args(["tail", "--wait", "--token-file", "no-such-token", "--url", NOBODY]).env_clear();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = output_of(child, "tail");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && output.stdout.is_empty(), "{said}");
    assert!(said.starts_with("walcast: cannot read no-such-token: No such file"), "{said}");
    assert!(said.contains("\nhint: let --token-file name a file") && !said.contains("127.0.0.1"), "{said}");
}

#[test]
fn where_it_listens_is_no_question_when_a_daemon_answers() {
    let address = server("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    let mut child = tail(&format!("ws://{address}"));
    let said = BufReader::new(child.stderr.take().unwrap());
    let lines: Vec<String> = said.lines().take(2).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines[0].contains("503 Service Unavailable (attempt 1); connecting again in "), "{lines:?}");
    assert!(lines[1].contains("503 Service Unavailable (attempt 2); connecting again in "), "{lines:?}");
}
