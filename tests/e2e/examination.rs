//! `walcast doctor` as a process: what it says and how it ends; and what `serve` says of the same.

use std::process::Output;

use serde_json::Value;
use walcast_testkit::{Daemon, TestDatabase, cluster_builder, for_each_version, installations, run};

use crate::upkeep::{lines, walcast};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The findings of a severity, from `walcast doctor --json`.
fn found(output: &Output, severity: &str) -> Vec<Value> {
    lines(output).into_iter().filter(|finding| finding["severity"] == severity).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_ends_with_3_for_errors_alone_and_names_what_mends_them() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        assert!(walcast(&database, &["setup"]).status.success());
        let well = walcast(&database, &["doctor", "--json"]);
        assert_eq!((well.status.code(), found(&well, "error")), (Some(0), vec![]), "{well:?}");

        // Warnings alone are no reason.
        database.run("CREATE TABLE keyless (id int)").await;
        let warned = walcast(&database, &["doctor", "--json"]);
        let warnings = found(&warned, "warning");
        assert!(warnings.iter().any(|finding| finding["check"] == "replica_identity"), "{warnings:#?}");
        assert_eq!((warned.status.code(), found(&warned, "error")), (Some(0), vec![]), "{warned:?}");

        database.drop_slot(&database.slot_name()).await;
        let ill = walcast(&database, &["doctor", "--json"]);
        assert_eq!((ill.status.code(), text(&ill.stderr)), (Some(3), String::new()), "{ill:?}");
        let [error] = &found(&ill, "error")[..] else { panic!("{ill:?}") };
        assert_eq!(error["check"], "slot");
        let parts = [("message", "does not exist any more"), ("fix", "walcast setup --start-over")];
        for (field, words) in parts {
            assert!(error[field].as_str().is_some_and(|said| said.contains(words)), "{error}");
        }
        let ill = walcast(&database, &["doctor", "--human"]);
        let said = text(&ill.stdout);
        assert_eq!(ill.status.code(), Some(3), "{said}");
        assert!(said.contains("\n  error  replication slot ") && said.contains("\n1 error, "), "{said}");
        walcast(&database, &["teardown", "--yes"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_said_and_not_shown() {
    const WRONG: &str = "not-the-password";
    for installation in installations() {
        let cluster = cluster_builder(&installation)
            .hba("host all secretive 127.0.0.1/32 scram-sha-256")
            .hba("host all all 127.0.0.1/32 trust")
            .start()
            .await
            .expect("a server");
        let database = TestDatabase::create(&cluster).await;
        database
            .run(
                "SET password_encryption = 'scram-sha-256';
                 CREATE ROLE secretive SUPERUSER LOGIN PASSWORD 'the-password'",
            )
            .await;
        let url = |password: &str| database.url_as(&format!("secretive:{password}"));
        let name = database.slot_name();
        let doctor = |form: &str, url: &str| {
            run(["doctor", form, "--database-url", url, "--slot", &name, "--publication", &name])
        };
        let right = doctor("--json", &url("the-password"));
        let connected = lines(&right).into_iter().find(|finding| finding["check"] == "connection");
        assert_eq!(connected.expect("a finding")["severity"], "ok", "{right:?}");
        let mut said = vec![text(&right.stdout), text(&right.stderr)];
        for form in ["--json", "--human"] {
            let wrong = doctor(form, &url(WRONG));
            assert_eq!(wrong.status.code(), Some(3), "{wrong:?}");
            let printed = text(&wrong.stdout);
            for words in ["password authentication failed for user", "secretive", "correct the password"] {
                assert!(printed.contains(words), "{words} in {printed}");
            }
            said.extend([printed, text(&wrong.stderr)]);
        }
        let mut daemon = Daemon::of(&database).flag("--database-url", url(WRONG)).spawn();
        assert_eq!(daemon.until_exit().await.code(), Some(1));
        let log = daemon.log().join("\n");
        let words = "walcast: password authentication failed for user \"secretive\" (SQLSTATE 28P01)\n\
                     hint: correct the password in database_url, in PGPASSWORD or in ~/.pgpass";
        assert!(log.contains(words), "{log}");
        said.push(log);
        for said in said {
            assert!(!said.contains("the-password"), "{said}");
        }
    }
}

const MISFITS: &str = r#"
[[policy]]
role = ["customer", "clerk"]
table = "public.orders"
columns = ["id", "totl"]
where = "customer_id = claims.sub"

[[policy]]
role = "other"
table = "public.orders"
where = "customer_id = claims.other"

[[policy]]
role = "clerk"
table = "public.lines"
where = "brnch = claims.branch"

[[policy]]
role = "clerk"
table = "public.ordrs"

[[policy]]
role = "*"
table = "*"
where = "id = claims.id"
"#;

/// Policies that do not do what they were written for are found by the doctor and said by the daemon, with what mends them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_that_do_not_fit_their_tables_are_said_with_what_mends_them() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database
            .run(
                "CREATE TABLE orders (id int PRIMARY KEY, customer_id text, total int);
                 CREATE TABLE lines (id int PRIMARY KEY, branch text);
                 CREATE TABLE keys (key int PRIMARY KEY)",
            )
            .await;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("policies.toml");
        std::fs::write(&path, "[[policy]]\nrole = 'a'\ntable = '*'\n").expect("a file");
        let settings = folder.path().join("walcast.toml");
        let secret = "a secret of tests that is long enough for tokens";
        let text = format!("policies = {path:?}\njwt_secret = {secret:?}\n");
        std::fs::write(&settings, text).expect("a file");
        let settings = settings.to_str().expect("a path");
        let daemon = Daemon::of(&database).flag("--config", settings).start().await;
        std::fs::write(&path, MISFITS).expect("a file");
        daemon.hang_up();
        let full = "ALTER TABLE \"public\".\"orders\" REPLICA IDENTITY FULL;";
        let log = daemon.until_log("which is not in the replica identity of public.orders").await;
        assert!(log.contains(" WARN ") && log.contains(&full.replace('"', "\\\"")), "{log}");
        daemon.until_log("gives nothing of public.keys, without a column").await;

        let examined = walcast(&database, &["doctor", "--json", "--config", settings]);
        let about = |severity: &str| -> Vec<(String, String)> {
            let found = found(&examined, severity).into_iter().filter(|one| one["check"] == "policies");
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            found.map(|one| (text(&one["message"]), text(&one["fix"]))).collect()
        };
        let [identity, unknown] = &about("error")[..] else { panic!("{examined:?}") };
        assert!(
            identity.0.starts_with("policy 1, line 2 of ") && identity.0.contains("customer_id"),
            "{identity:?}"
        );
        assert_eq!(identity.1, full);
        assert!(unknown.0.contains("column \"brnch\" does not exist in public.lines"), "{unknown:?}");
        let [columns, table, many] = &about("warning")[..] else { panic!("{examined:?}") };
        assert!(
            columns.0.contains("does not publish: totl") && columns.1.contains("mean total?"),
            "{columns:?}"
        );
        assert!(
            table.0.contains("names public.ordrs") && table.1.contains("mean public.orders?"),
            "{table:?}"
        );
        assert!(many.0.contains("gives nothing of public.keys"), "{many:?}");
        assert_eq!(examined.status.code(), Some(3));

        database.run(full).await;
        let examined = walcast(&database, &["doctor", "--json", "--config", settings]);
        assert!(!text_of(&examined).contains("replica identity"), "{examined:?}");
    })
    .await;
}

fn text_of(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// `walcast` as somebody who may less than the owner of the database.
fn walcast_as(database: &TestDatabase, role: &str, arguments: &[&str]) -> Output {
    let (url, name) = (database.url_as(role), database.slot_name());
    run(arguments.iter().chain(&["--database-url", &url, "--slot", &name, "--publication", &name]))
}

/// The checks of a severity.
fn checks(output: &Output, severity: &str) -> Vec<String> {
    found(output, severity)
        .iter()
        .map(|finding| finding["check"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// The statements of the errors.
fn statements(output: &Output) -> String {
    let errors = found(output, "error");
    let steps =
        errors.iter().flat_map(|finding| finding["fix_steps"].as_array().cloned().unwrap_or_default());
    steps.filter_map(|step| step["sql"].as_str().map(str::to_owned)).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_little_has_everything_at_once_and_once() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let role = database.unique("plain");
        database
            .run(&format!(
                "CREATE ROLE {role} LOGIN; CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
                 CREATE TABLE bare (id int);
                 CREATE TABLE own (id int PRIMARY KEY); ALTER TABLE own OWNER TO {role}"
            ))
            .await;
        let doctor = |form: &str| walcast_as(&database, &role, &["doctor", form]);
        let poor = doctor("--json");
        let all = ["replication_login", "publication_privilege", "select_privilege", "history_schema"];
        assert_eq!((poor.status.code(), checks(&poor, "error")), (Some(3), all.map(str::to_owned).into()), "{poor:?}");
        let said = text(&doctor("--human").stdout);
        assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
        for words in ["\n         SQL: ALTER ROLE", "\n         run: walcast setup", "4 errors, "] {
            assert!(said.contains(words), "{words} in {said}");
        }

        // What it says is all that is needed, also for a table that is the role's own: the rest walcast does. A table that
        // walcast may not move is moved by the statement that makes it possible.
        database.run(&statements(&poor)).await;
        let mut keyless = found(&poor, "warning");
        keyless.retain(|finding| finding["check"] == "replica_identity");
        let [bare] = &keyless[..] else { panic!("{poor:?}") };
        database.run(bare["fix"].as_str().expect("a statement")).await;
        let whole = format!(
            "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables WHERE pubname = '{}'",
            database.slot_name()
        );
        assert_eq!(database.scalar(&whole).await.as_deref(), Some("a b bare own"));
        let ready = doctor("--json");
        assert!(!checks(&ready, "warning").contains(&"replica_identity".to_owned()), "{ready:?}");
        let notes = ["slot", "history_schema"].map(str::to_owned);
        assert_eq!((ready.status.code(), checks(&ready, "note")), (Some(0), notes.into()), "{ready:?}");
        assert!(!text(&ready.stdout).contains("CREATE SCHEMA"), "{ready:?}");
        assert!(walcast_as(&database, &role, &["setup"]).status.success());

        // A table of somebody else that comes later.
        let daemon = Daemon::of(&database).flag("--database-url", database.url_as(&role)).start().await;
        database.run("CREATE TABLE late (id int PRIMARY KEY)").await;
        let log = daemon.until_log("may not publish it, which needs the owner").await;
        let grant = format!("GRANT SELECT ON \\\"public\\\".\\\"late\\\" TO \\\"{role}\\\";");
        assert!(log.contains("ALTER PUBLICATION") && log.contains(&grant), "{log}");
        let again = walcast_as(&database, &role, &["setup", "--human"]);
        let said = text(&again.stdout);
        assert!(said.contains("public.late is not published: role") && !said.contains("published whole"), "{said}");
        assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
        drop(daemon);

        // What it may not drop is said before anything is dropped.
        let drop = format!("DROP PUBLICATION IF EXISTS \"{}\";", database.slot_name());
        let asked = walcast_as(&database, &role, &["teardown", "--human"]);
        assert_eq!(asked.status.code(), Some(1));
        assert!(text(&asked.stdout).contains(&drop) && text(&asked.stderr).contains("add --yes"), "{asked:?}");
        let done = walcast_as(&database, &role, &["teardown", "--human", "--yes"]);
        let said = text(&done.stdout);
        let (told, dropped) = (said.find(&drop), said.find("is dropped"));
        assert!(told.is_some() && told < dropped && text(&done.stderr).contains(&drop), "{done:?}");
        let name = database.slot_name();
        database.run(&format!("DROP PUBLICATION {name}, {name}_inserts; DROP OWNED BY {role}")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_serve_refuses_are_a_finding_and_the_rest_is_examined() {
    let database = TestDatabase::create(walcast_testkit::shared_cluster().await).await;
    database.run("CREATE TABLE orders (id int PRIMARY KEY)").await;
    assert!(walcast(&database, &["setup"]).status.success());
    let folder = tempfile::tempdir().expect("a folder");
    let (policies, settings) = (folder.path().join("policies.toml"), folder.path().join("walcast.toml"));
    std::fs::write(&policies, "[[policy]]\nrole = 'a'\ntable = 'public.ordrs'\n").expect("a file");
    std::fs::write(&settings, format!("policies = {policies:?}\nlisten = '0.0.0.0:4700'\n")).expect("a file");
    let settings = settings.to_str().expect("a path");
    let examined = walcast(&database, &["doctor", "--json", "--config", settings]);
    assert_eq!(examined.status.code(), Some(3), "{examined:?}");
    let errors: Vec<String> =
        found(&examined, "error").iter().map(|found| found["message"].to_string()).collect();
    // In the order of the settings.
    let [listen, key] = &errors[..] else { panic!("{examined:?}") };
    assert!(listen.contains("walcast.toml:2: listen: others reach 0.0.0.0:4700"), "{listen}");
    assert!(key.contains("walcast.toml:1: policies: tokens are not looked at"), "{key}");
    let said = text(&examined.stdout);
    assert!(said.contains("mean public.orders?") && said.contains("is in order"), "{said}");
    // The others go on refusing them.
    assert_eq!(walcast(&database, &["setup", "--config", settings]).status.code(), Some(2));

    // Files that serve cannot use are findings too, each with its setting; the others do not need them.
    let [key, certificate] = ["keys.json", "cert.pem"].map(|name| folder.path().join(name));
    std::fs::write(&key, "{}").expect("a file");
    let (policies, key) = (policies.to_str().expect("a path"), key.to_str().expect("a path"));
    let certificate = certificate.to_str().expect("a path");
    let files = [
        "--jwt-jwks-file",
        key,
        "--tls-cert-file",
        certificate,
        "--tls-key-file",
        key,
        "--policies",
        policies,
    ];
    let examined = walcast(&database, &[&["doctor", "--json"], &files[..]].concat());
    let errors = found(&examined, "error");
    let about = |setting: &str, fix: &str| {
        let is_it = |error: &Value| {
            let (message, told) =
                (error["message"].as_str().unwrap_or_default(), error["fix"].as_str().unwrap_or_default());
            error["check"] == "settings" && message.starts_with(setting) && told.starts_with(fix)
        };
        assert!(errors.iter().any(is_it), "{setting} in {errors:#?}");
    };
    about("--tls-cert-file: cannot read ", "check that the file is there");
    about("--tls-key-file: ", "write the certificate's private key");
    about("--jwt-jwks-file: ", "write a whole key set");
    assert_eq!(errors.len(), 3, "{errors:#?}");
    assert!(
        text(&examined.stdout).contains("mean public.orders?"),
        "the policies are looked at: {examined:?}"
    );
    walcast(&database, &["teardown", "--yes"]);
}
