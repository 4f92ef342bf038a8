//! The command line as a process: exit codes, and what goes where.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use walcast_testkit::{output_of, run_command};

/// `walcast` with nothing of this process's environment, in an empty folder.
fn walcast(folder: &std::path::Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walcast"));
    command.args(arguments).current_dir(folder).env_clear().envs(variables.iter().copied());
    run_command(command)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_goes_to_standard_output_and_a_wrong_word_to_standard_error_with_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let help = walcast(folder.path(), &["serve", "--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("--database-url <URL>"), "{}", text(&help.stdout));
    let wrong = walcast(folder.path(), &["serv"], &[]);
    assert_eq!((wrong.status.code(), wrong.stdout.len()), (Some(2), 0));
    assert!(text(&wrong.stderr).contains("serve"), "{}", text(&wrong.stderr));
}

#[test]
fn mistakes_in_flags_variables_and_file_are_listed_together_with_code_2() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("walcast.toml"), "\nfeed_memmory = '1GiB'\n").unwrap();
    let variables = [("PGUSER", "u"), ("WALCAST_HEARTBEAT", "often")];
    let output = walcast(folder.path(), &["serve", "--listen", "4700", "--slot", "A"], &variables);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    let expected = "\
walcast: 4 mistakes in the settings
  walcast.toml:2: feed_memmory: there is no such setting; did you mean feed_memory?
  --slot: \"A\": expected a slot name: 1 to 63 of a-z, 0-9 and _
  --listen: \"4700\": expected an IP address with a port such as 127.0.0.1:4700, 0.0.0.0:4700 or [::1]:4700, or unix:/path
  WALCAST_HEARTBEAT: \"often\": expected a duration with its unit such as 250ms, 10s, 5min, 2h
";
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn wrong_policies_keep_the_daemon_from_starting_with_all_their_mistakes_and_code_2() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.toml"), "[[policy]]\nrole = 'a'\ntable = 'orders'\nwhere = 'a ='\n")
        .unwrap();
    let variables =
        [("PGUSER", "u"), ("WALCAST_JWT_SECRET", "a secret of tests that is long enough for tokens")];
    let output = walcast(folder.path(), &["serve", "--policies", "p.toml"], &variables);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    let said = text(&output.stderr);
    let start = "walcast: 1 mistake in the settings\n  --policies: 2 mistakes in p.toml\n    policy 1, line 3: \"orders\" names no table";
    assert!(said.starts_with(start), "{said}");
    assert!(said.contains("\n    policy 1, line 4: where: "), "{said}");
    let output = walcast(folder.path(), &["serve", "--policies", "nowhere.toml"], &variables);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nowhere.toml cannot be read"), "{}", text(&output.stderr));
}

/// Whatever else is wrong, and each with its setting and with what to do.
#[test]
fn all_that_is_wrong_with_the_files_that_settings_name_is_said_in_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let policies =
        "[[policy]]\nrole = 'a'\ntable = 'public.t'\n\n[[policy]]\nrole = ['a', '']\ntable = 'public.t'\n";
    for (name, text) in [("p.toml", policies), ("short", "hunter2\n"), ("key.pem", "no key")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let url = "postgresql://u@db/d?sslmode=verify-full&sslrootcert=/nowhere/root.crt";
    let files = ["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--jwt-secret-file", "short"];
    let told = |command: &'static str, more: &[&'static str]| {
        let arguments =
            [&[command, "--policies", "p.toml", "--database-url", url], &files[..], more].concat();
        let output = walcast(folder.path(), &arguments, &[]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{output:?}");
        text(&output.stderr).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let hint = "check that the file is there and may be read by walcast's user";
    let listed = |number: usize, of_slot: &str| {
        let all = format!(
            "walcast: {number} mistakes in the settings
  --database-url: sslmode=verify-full needs the root certificate file /nowhere/root.crt, which does not exist
{of_slot}  --tls-cert-file: cannot read cert.pem: No such file or directory (os error 2); {hint}
  --tls-key-file: key.pem has no private key in PEM (BEGIN PRIVATE KEY) that is not encrypted; \
write the certificate's private key into it; openssl pkey -in FILE -out FILE takes a passphrase off
  --policies: 2 mistakes in p.toml
    policy 2, line 6: role is empty; name a role, or \"*\" for every role
    policy 2, line 7: table public.t has a policy for role \"a\" already: policy 1, line 1; \
leave one of them; conditions are joined in one where, by OR and AND
  --jwt-secret-file: the secret has 7 bytes; use at least 32, for instance the output of: openssl rand -base64 48; \
write a longer secret into the file"
        );
        all.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(told("serve", &[]), listed(5, ""));
    let of_slot = "  --slot: \"A\": expected a slot name: 1 to 63 of a-z, 0-9 and _\n";
    assert_eq!(told("serve", &["--slot", "A"]), listed(6, of_slot));
    // The doctor looks at nothing else while settings cannot be read.
    assert_eq!(told("doctor", &["--slot", "A"]), listed(6, of_slot));
}

#[test]
fn an_address_of_a_daemon_that_is_none_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    for address in ["nonsense", ":4700", "127.0.0.1:70000"] {
        let output = walcast(folder.path(), &["status", "--daemon", address], &[("PGUSER", "u")]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("write host:port, such as 127.0.0.1:4700"), "{said}");
    }
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let output = walcast(folder.path(), &["status", "--config", "nowhere.toml"], &[("PGUSER", "u")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nowhere.toml: cannot be read"), "{}", text(&output.stderr));
}

#[test]
fn a_database_that_is_not_there_is_a_failure_with_code_1_and_shows_no_password() {
    let folder = tempfile::tempdir().unwrap();
    let url = "postgresql://u:hunter2@127.0.0.1:1/d?connect_timeout=2";
    let output = walcast(folder.path(), &["replay", "--database-url", url], &[]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let said = text(&output.stderr);
    assert!(said.contains("127.0.0.1") && !said.contains("hunter2"), "{said}");
}

/// The connection that `child` makes, which it must do before it ends.
fn accept(server: &TcpListener, child: &mut Child) -> TcpStream {
    server.set_nonblocking(true).expect("a socket");
    let started = Instant::now();
    loop {
        match server.accept() {
            Ok((connection, _)) => return connection,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        let ended = child.try_wait().expect("a child");
        assert!(ended.is_none() && started.elapsed() < Duration::from_secs(30), "no connection: {ended:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_command_that_is_interrupted_does_not_say_that_it_was_done() {
    let folder = tempfile::tempdir().unwrap();
    // A server that takes the connection and says nothing.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgresql://u@{}/d", server.local_addr().unwrap());
    for command in ["setup", "teardown", "replay", "doctor"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_walcast"));
        child.args([command, "--database-url", &url]).current_dir(folder.path()).env_clear();
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _connection = accept(&server, &mut child);
        let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let output = output_of(child, command);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(text(&output.stderr).contains("interrupted"), "{command}: {}", text(&output.stderr));
    }
}

#[test]
fn tail_refuses_a_url_that_is_none_of_a_websocket() {
    let folder = tempfile::tempdir().unwrap();
    let output = walcast(folder.path(), &["tail", "--url", "http://127.0.0.1:1"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("write ws://"), "{}", text(&output.stderr));
}

#[test]
fn every_shell_gets_its_completions() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = walcast(folder.path(), &["completions", shell], &[]);
        assert_eq!(output.status.code(), Some(0));
        let script = text(&output.stdout);
        assert!(script.contains("walcast") && script.contains("history-url"), "{shell}");
    }
}
