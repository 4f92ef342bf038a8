//! What a snapshot did not see.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use walcast_model::{Cursor, Lsn, Seq, Snapshot, Xid};
use walcast_testkit::for_each_version;

use crate::world::World;

#[tokio::test]
async fn the_first_invisible_transaction_is_the_one_that_a_full_read_finds() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let mut random = StdRng::seed_from_u64(51);
        let session = world.database.session().await;
        session
            .batch_execute("SELECT walcast.ensure_partition(lsn, 4096) FROM unnest('{0/1000,0/2000,0/3000}'::pg_lsn[]) AS lsn")
            .await
            .unwrap();
        // 300 transactions of two changes each, with ids that are near the order of commit and not in it.
        let mut transactions: Vec<(u64, u64)> = Vec::new();
        for index in 0..300_u64 {
            let xid = (8 << 32) + index + random.random_range(0..20);
            transactions.push((0x1000 + index * 40, xid));
        }
        let values: Vec<String> = transactions.iter().map(|(lsn, xid)| format!("({lsn}, {xid})")).collect();
        session
            .batch_execute(&format!(
                "INSERT INTO walcast.change_history (lsn, seq, xid, committed_at, relation, op, schema_name, table_name)
                 SELECT '0/0'::pg_lsn + v.lsn, seq, v.xid, now(), 1, 'truncate', 's', 't'
                 FROM (VALUES {}) AS v(lsn, xid), generate_series(0, 1) AS seq",
                values.join(", ")
            ))
            .await
            .unwrap();
        for round in 0..200 {
            if round == 100 {
                session.batch_execute("SELECT walcast.summarize(oid) FROM walcast.partition").await.unwrap();
            }
            let xmin = (8_u64 << 32) + random.random_range(0..330);
            let xmax = xmin + random.random_range(0..60);
            let open: Vec<String> =
                (xmin..xmax).filter(|_| random.random_bool(0.1)).map(|xid| xid.to_string()).collect();
            let snapshot: Snapshot = format!("{xmin}:{xmax}:{}", open.join(",")).parse().unwrap();
            let before = Cursor::from(Lsn::new(0x1000 + random.random_range(0..310) * 40));
            let expected = transactions
                .iter()
                .filter(|(lsn, xid)| Cursor::from(Lsn::new(*lsn)) < before && !snapshot.sees(Xid::new(*xid)))
                .map(|(lsn, _)| Cursor::from(Lsn::new(*lsn)))
                .min();
            assert_eq!(world.reader.first_invisible(&snapshot, before).await.unwrap(), expected, "{snapshot} {before}");
        }
        // Inside a transaction: its first change is before the position.
        let (lsn, xid) = transactions[7];
        let snapshot: Snapshot = format!("{}:{}:{xid}", xid, u64::from(u32::MAX) << 20).parse().unwrap();
        let first = world.reader.first_invisible(&snapshot, Cursor::new(Lsn::new(lsn), Seq::new(1))).await.unwrap();
        assert!(first.is_some_and(|first| first.lsn() <= Lsn::new(lsn)));
    })
    .await;
}
