//! What any role of the database can write, and that shall not fill the log.

use walcast_testkit::{Daemon, LIMIT, TestDatabase, eventually, shared_cluster};

const SAID: usize = 300;

/// What is wrong, what the log says of it, and what counts it.
const KINDS: [(&str, &str, &str); 4] = [
    ("(false, 'walcast.message', '{\"channel\": 7}')", "left out a message to a channel", "bad_message"),
    ("(true, 'walcast', 'no JSON')", "left out what a transaction says about itself", "bad_meta"),
    ("(true, 'walcast.rows', 'no secret')", "that this feed did not write", "unknown_secret"),
    (
        "(false, 'walcast.message', convert_to('{\"channel\": \"c\", \"payload\": \"too large for it\"}', 'UTF8'))",
        "is over payload_bytes_max (8) and was not told",
        "payload_bytes_max",
    ),
];

#[tokio::test]
async fn bad_messages_of_a_role_are_counted_each_and_logged_now_and_then() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let daemon = Daemon::of(&database).flag("--payload-bytes-max", 8).start().await;
    let counted = async |label: &str| {
        let page = daemon.get("/metrics").await.expect("metrics").body;
        let line = page.lines().find(|line| line.contains(&format!("=\"{label}\"}}"))).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).unwrap_or_default()
    };
    let logged = |fragment: &str| -> Vec<String> {
        daemon.log().into_iter().filter(|line| line.contains(fragment)).collect()
    };
    // Those that a line says were not logged, and the lines.
    let told = |fragment: &str| {
        let lines = logged(fragment);
        let unlogged = lines.iter().filter_map(|line| {
            let number = line.split("unlogged=").nth(1)?.split(' ').next()?;
            number.parse::<usize>().ok()
        });
        unlogged.sum::<usize>() + lines.len()
    };
    let began = std::time::Instant::now();
    for (arguments, fragment, label) in KINDS {
        let one = format!("SELECT pg_logical_emit_message{arguments}");
        database.run(&format!("{one} FROM generate_series(1, {SAID})")).await;
        eventually(fragment, LIMIT, async || (counted(label).await == SAID).then_some(())).await;
        daemon.until_log(fragment).await;
        // One in ten seconds.
        let most = 1 + usize::try_from(began.elapsed().as_secs() / 10).expect("few");
        let lines = logged(fragment);
        assert!((1..=most).contains(&lines.len()), "{} lines of {SAID}: {lines:?}", lines.len());
        assert!(lines[0].contains("WARN") && lines[0].contains("unlogged=0"), "{lines:?}");
    }
    // The next that is logged says how many were not.
    for (arguments, fragment, label) in KINDS {
        let one = format!("SELECT pg_logical_emit_message{arguments}");
        let mut said = SAID;
        eventually(fragment, LIMIT, async || {
            database.run(&one).await;
            said += 1;
            let arrived = async || (counted(label).await == said).then_some(());
            eventually("it is counted", LIMIT, arrived).await;
            (told(fragment) > SAID).then_some(())
        })
        .await;
        // A line may be seen only after another one was said, which is not among them then.
        assert!(told(fragment) <= said, "{} of {said}: {:?}", told(fragment), logged(fragment));
    }
}
