//! Who may have what: policies by the real daemon, on real rows, and attempts to get at what is not one's own.

mod altered;
mod claims;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use walcast_model::Cursor;
use walcast_testkit::{Daemon, LIMIT, TestDatabase, for_each_version, shared_cluster, within};

use crate::observer::{Socket, open, receive, send, wal_position};

pub(crate) const SECRET: &str = "a secret of tests that is long enough for HS256";

pub(crate) const TABLES: &str = "CREATE TABLE notes (id int PRIMARY KEY, owner text COLLATE \"C\", body text, secret text);
    ALTER TABLE notes REPLICA IDENTITY FULL;
    CREATE TABLE prices (id int PRIMARY KEY, price numeric);
    CREATE TABLE cards (id int PRIMARY KEY, number text);
    INSERT INTO notes SELECT g, CASE g % 2 WHEN 0 THEN 'ann' ELSE 'bob' END, 'body ' || g, 'secret ' || g FROM generate_series(1, 40) g;
    INSERT INTO prices VALUES (1, 9.99); INSERT INTO cards VALUES (1, 'card 4111')";

pub(crate) const POLICIES: &str = r#"
[[policy]]
role = "user"
table = "public.notes"
columns = ["owner", "body"]
where = "owner = claims.sub"

[[policy]]
role = "*"
table = "public.prices"

[[policy]]
role = "admin"
table = "*"
"#;

pub(crate) fn token(subject: &str, role: &str) -> String {
    signed(json!({"sub": subject, "role": role}), 600)
}

/// A token with these claims that is good for so many seconds, or up to one less.
pub(crate) fn signed(mut claims: Value, seconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
    claims["exp"] = json!(now + seconds);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).expect("a token")
}

/// A daemon with policies, and their file.
pub(crate) async fn daemon(database: &TestDatabase, folder: &tempfile::TempDir) -> (Daemon, PathBuf) {
    let path = folder.path().join("policies.toml");
    std::fs::write(&path, POLICIES).expect("a file");
    let daemon = Daemon::of(database)
        .flag("--jwt-secret", SECRET)
        .flag("--policies", path.display())
        .flag("--heartbeat", "200ms")
        .flag("--subscribes-per-second-max", 1000)
        .start()
        .await;
    (daemon, path)
}

/// A connection, and everything that came over it.
struct Client {
    socket: Socket,
    heard: String,
    /// Since the last that was waited for came.
    heartbeats: u32,
    /// What came while something else was waited for.
    others: Vec<Value>,
}

impl Client {
    async fn connect(daemon: &Daemon, token: &str) -> Self {
        let (socket, _) = open(&format!("{}?token={token}", daemon.ws_url())).await;
        Self { socket, heard: String::new(), heartbeats: 0, others: Vec::new() }
    }

    async fn subscribe(&mut self, id: &str, entry: Value, cursor: Option<Cursor>) {
        let mut message = json!({"type": "subscribe", "id": id, "tables": [entry]});
        if let Some(cursor) = cursor {
            message["cursor"] = json!(cursor.to_string());
        }
        send(&mut self.socket, message).await;
    }

    async fn next(&mut self) -> Value {
        let message = within("a message", LIMIT, receive(&mut self.socket)).await;
        let message = message.expect("the connection goes on");
        self.heard.push_str(&message.to_string());
        self.heartbeats += u32::from(message["type"] == "heartbeat");
        assert!(self.heartbeats < 150, "what is waited for does not come after\n{}", self.heard);
        message
    }

    /// The next message of a kind about a subscription; an error about it too.
    async fn until(&mut self, id: &str, kind: &str) -> Value {
        let is_it =
            |message: &Value| message["id"] == id && (message["type"] == kind || message["type"] == "error");
        if let Some(at) = self.others.iter().position(is_it) {
            return self.others.remove(at);
        }
        self.heartbeats = 0;
        loop {
            let message = self.next().await;
            if is_it(&message) {
                return message;
            }
            self.others.push(message);
        }
    }

    async fn refused(&mut self, id: &str, entry: Value) -> (String, String) {
        self.subscribe(id, entry, None).await;
        let error = self.until(id, "caught_up").await;
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (text("code"), format!("{} {}", text("message"), text("hint")))
    }

    /// Until a heartbeat says that everything before `end` was told.
    async fn until_past(&mut self, end: Cursor) {
        self.heartbeats = 0;
        loop {
            let message = self.next().await;
            let cursor = message["cursor"].as_str().filter(|_| message["type"] == "heartbeat");
            if cursor.is_some_and(|cursor| cursor.parse::<Cursor>().expect("a cursor") >= end) {
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_client_gets_its_own_and_no_word_of_what_is_not() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run(TABLES).await;
        let folder = tempfile::tempdir().expect("a folder");
        let (mut daemon, _) = daemon(&database, &folder).await;
        let start = wal_position(&database).await;
        let mut ann = Client::connect(&daemon, &token("ann", "user")).await;
        ann.subscribe("named", json!({"table": "public.notes"}), None).await;
        ann.subscribe("all", json!({"table": "*"}), None).await;
        for id in ["named", "all"] {
            assert_eq!(ann.until(id, "caught_up").await["type"], "caught_up");
        }
        // 20 of the 40 rows, and no more are counted.
        assert!(!ann.heard.contains("bob"), "{}", ann.heard);
        assert!(ann.heard.contains(r#""done":20"#) && !ann.heard.contains(r#""done":40"#), "{}", ann.heard);
        database
            .run(
                "INSERT INTO notes VALUES (101, 'bob', 'bobs', 'x'), (102, 'ann', 'anns', 'x');
                 UPDATE notes SET owner = 'ann' WHERE id = 1; UPDATE notes SET owner = 'bob' WHERE id = 2;
                 DELETE FROM notes WHERE id IN (3, 4); UPDATE notes SET secret = 'new secret' WHERE id = 5;
                 UPDATE cards SET number = 'card 4222'; UPDATE prices SET price = 8.88",
            )
            .await;
        let end = wal_position(&database).await;
        ann.until_past(end).await;
        // Live, by both subscriptions: rows that came, went and were taken away, these by their key alone.
        for change in [
            r#"{"key":{"id":102},"op":"insert","row":{"body":"anns","id":102,"owner":"ann"},"table":"public.notes"}"#,
            r#"{"key":{"id":1},"op":"insert","row":{"body":"body 1","id":1,"owner":"ann"},"table":"public.notes"}"#,
            r#"{"key":{"id":2},"op":"delete","table":"public.notes"}"#,
            r#"{"key":{"id":4},"old":{"body":"body 4","id":4,"owner":"ann"},"op":"delete","table":"public.notes"}"#,
        ] {
            assert_eq!(ann.heard.matches(change).count(), 2, "{change}\n{}", ann.heard);
        }
        assert!(ann.heard.contains(r#""price":8.88"#), "what everybody may have");
        // The same from history, by a daemon that has nothing in memory.
        daemon.terminate().await;
        daemon.restart().await;
        let mut late = Client::connect(&daemon, &token("ann", "user")).await;
        late.subscribe("all", json!({"table": "*"}), Some(start)).await;
        assert_eq!(late.until("all", "caught_up").await["type"], "caught_up");
        for heard in [&ann.heard, &late.heard] {
            for word in ["bob", "secret", "cards", "card 4", r#""id":101"#, r#""id":3}"#, r#""id":5,"#] {
                assert!(!heard.contains(word), "{word} was told:\n{heard}");
            }
        }
        assert!(late.heard.contains(r#"{"key":{"id":2},"op":"delete","table":"public.notes"}"#), "{}", late.heard);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_granted_cannot_be_found_out() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run(TABLES).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (daemon, _) = daemon(&database, &folder).await;
    let mut ann = Client::connect(&daemon, &token("ann", "user")).await;
    // Whether a table exists.
    let (code, text) = ann.refused("1", json!({"table": "public.cards"})).await;
    let (other, none) = ann.refused("2", json!({"table": "public.nothing"})).await;
    assert_eq!((code.as_str(), other.as_str()), ("forbidden", "forbidden"));
    assert_eq!(text.replace("cards", "nothing"), none);
    // Whether a column exists, and what is in it.
    let about = |filter: &str| json!({"table": "public.notes", "where": filter});
    let (code, text) = ann.refused("3", about("secret LIKE 's%'")).await;
    let (other, none) = ann.refused("4", about("sacret LIKE 's%'")).await;
    assert_eq!((code.as_str(), other.as_str()), ("bad_filter", "bad_filter"));
    assert_eq!(text.replace("secret", "sacret"), none);
    assert!(!none.contains("secret"), "{none}");
    assert_eq!(
        ann.refused("5", json!({"table": "public.notes", "columns": ["secret"]})).await.0,
        "forbidden"
    );
    // The rows of others, whatever the filter says, and nothing of the database.
    for (index, filter) in
        ["owner = 'bob'", "true OR owner = 'bob'", "owner <> 'ann'"].into_iter().enumerate()
    {
        let id = format!("rows {index}");
        ann.subscribe(&id, about(filter), None).await;
        assert_eq!(ann.until(&id, "caught_up").await["type"], "caught_up", "{filter}");
    }
    assert!(!ann.heard.contains(r#""owner":"bob""#), "{}", ann.heard);
    for (index, filter) in [
        "id = (SELECT count(*) FROM cards)",
        "body = current_user",
        "pg_sleep(10) IS NULL",
        "body = '' ; DROP TABLE notes",
        "id = 1 -- ",
        "body = E'\\x27'",
        "EXISTS (TABLE cards)",
        "1 = 1/0",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(ann.refused(&format!("sql {index}"), about(filter)).await.0, "bad_filter", "{filter}");
    }
    // A role that no policy knows, and one that nobody gave.
    let mut nobody = Client::connect(&daemon, &token("ann", "nobody")).await;
    assert_eq!(nobody.refused("1", json!({"table": "public.notes"})).await.0, "forbidden");
    nobody.heard.clear();
    nobody.subscribe("2", json!({"table": "*"}), None).await;
    assert_eq!(nobody.until("2", "caught_up").await["type"], "caught_up");
    assert!(nobody.heard.contains(r#""price":9.99"#) && !nobody.heard.contains("notes"), "{}", nobody.heard);
    // Claims are values.
    for subject in ["ann' OR 'a' = 'a", "' OR true --", "%", "claims.sub"] {
        let mut evil = Client::connect(&daemon, &token(subject, "user")).await;
        evil.subscribe("s", json!({"table": "public.notes"}), None).await;
        assert_eq!(evil.until("s", "caught_up").await["type"], "caught_up");
        assert!(!evil.heard.contains(r#""type":"snapshot"}"#), "{subject}: {}", evil.heard);
    }
}

#[tokio::test]
async fn other_policies_and_other_tokens_change_what_a_running_subscription_is_given() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run(TABLES).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (daemon, path) = daemon(&database, &folder).await;
    let mut ann = Client::connect(&daemon, &token("ann", "user")).await;
    ann.subscribe("notes", json!({"table": "public.notes"}), None).await;
    ann.subscribe("prices", json!({"table": "public.prices"}), None).await;
    for id in ["notes", "prices"] {
        ann.until(id, "caught_up").await;
    }
    // A wider policy for one of the two: that one starts over, and nothing else happens to the other.
    std::fs::write(
        &path,
        POLICIES.replace("where = \"owner = claims.sub\"", "where = \"owner IN ('ann', 'bob')\""),
    )
    .expect("a file");
    daemon.hang_up();
    ann.heard.clear();
    ann.others.clear();
    assert_eq!(ann.until("notes", "subscribed").await["mode"], "snapshot");
    ann.until("notes", "caught_up").await;
    assert!(ann.heard.contains(r#""owner":"bob""#) && ann.heard.contains(r#""done":40"#), "{}", ann.heard);
    assert!(!ann.heard.contains(r#""id":"prices""#), "{}", ann.heard);
    // None: it is over, and the connection is not.
    std::fs::write(&path, "[[policy]]\nrole = \"*\"\ntable = \"public.prices\"\n").expect("a file");
    daemon.hang_up();
    assert_eq!(ann.until("notes", "error").await["code"], "forbidden");
    // A file that cannot be used changes nothing.
    std::fs::write(&path, "[[policy]]\nrole = ").expect("a file");
    daemon.hang_up();
    daemon.until_log("the policies that were in force stay so").await;
    database.run("UPDATE prices SET price = 7.77").await;
    assert_eq!(ann.until("prices", "transaction").await["changes"][0]["row"]["price"], json!(7.77));
    // Another token of the same subject, with another role.
    std::fs::write(&path, POLICIES).expect("a file");
    daemon.hang_up();
    daemon.until_metric("walcast_policies_reloads_total", 3.0).await;
    assert_eq!(ann.refused("cards", json!({"table": "public.cards"})).await.0, "forbidden");
    send(&mut ann.socket, json!({"type": "auth", "token": token("ann", "admin")})).await;
    ann.subscribe("cards", json!({"table": "public.cards"}), None).await;
    assert_eq!(ann.until("cards", "caught_up").await["type"], "caught_up");
    assert!(ann.heard.contains("card 4111"), "{}", ann.heard);
    send(&mut ann.socket, json!({"type": "auth", "token": token("ann", "user")})).await;
    assert_eq!(ann.until("cards", "error").await["code"], "forbidden");
}
