//! The plan, without a server: every state of a table against every state of the publications. What Postgres makes of
//! the statements is tested in `tests/`.

use walcast_model::{Oid, RelationName};

use super::plan::{Action, Pickup, Plan, TableStep};
use super::published::{News, Published};
use super::{Facts, IdentityFacts, PublicationFacts, PublicationSettings, RoleFacts, Selection, TableFacts};

fn table(oid: u32, identity: IdentityFacts) -> TableFacts {
    TableFacts {
        oid: Oid::new(oid),
        name: RelationName::new("public", format!("t{oid}")),
        partitioned: false,
        root: None,
        permanent: true,
        extension: false,
        owned: true,
        usage: true,
        select: true,
        identity,
    }
}

const NO_KEY: IdentityFacts = IdentityFacts::NoKey { unique_index: None };

fn root(oid: u32) -> TableFacts {
    TableFacts { partitioned: true, ..table(oid, IdentityFacts::Usable) }
}

fn leaf(oid: u32, root: u32, identity: IdentityFacts) -> TableFacts {
    TableFacts { root: Some(Oid::new(root)), ..table(oid, identity) }
}

/// Both publications exist, with these tables.
fn facts(tables: Vec<TableFacts>, whole: &[u32], inserts: &[u32]) -> Facts {
    let publication = |name: &str, operations, tables: &[u32]| PublicationFacts {
        name: name.to_owned(),
        operations,
        owned: true,
        tables: tables.iter().copied().map(Oid::new).collect(),
        ..PublicationFacts::default()
    };
    Facts {
        tables,
        publications: vec![
            publication("feed", [true; 4], whole),
            publication("feed_inserts", [true, false, false, true], inserts),
        ],
        role: RoleFacts { name: "walcast".into(), create: true, ..RoleFacts::default() },
        database: "db".into(),
        standby: false,
    }
}

/// `+feed t1`, `-feed t1`, with `rows` or `replace`.
fn steps(facts: &Facts) -> Vec<String> {
    let plan = Plan::new(facts, &PublicationSettings::new("feed"));
    let text = |step: &TableStep| {
        let leave = step.leave.iter().map(|name| format!("-{name} "));
        let enter = step.enter.iter().map(|(_, name)| format!("+{name} "));
        let pickup = match step.pickup {
            Pickup::None => "",
            Pickup::Rows => " rows",
            Pickup::Replace => " replace",
        };
        format!("{}{}{pickup}", leave.chain(enter).collect::<String>(), step.name.table)
    };
    let steps = plan.steps.iter().map(|step| match &step.action {
        Action::Table(table) => text(table),
        Action::Publication { statement, .. } => statement.clone(),
    });
    steps.collect()
}

#[test]
fn a_plain_table_goes_where_its_identity_says() {
    let usable = || vec![table(1, IdentityFacts::Usable)];
    let bare = || vec![table(1, NO_KEY)];
    let none: [&str; 0] = [];
    assert_eq!(steps(&facts(usable(), &[], &[])), ["+feed t1 rows"]);
    assert_eq!(steps(&facts(bare(), &[], &[])), ["+feed_inserts t1 rows"]);
    assert_eq!(steps(&facts(usable(), &[1], &[])), none);
    assert_eq!(steps(&facts(bare(), &[], &[1])), none);
    assert_eq!(steps(&facts(usable(), &[], &[1])), ["-feed_inserts +feed t1 replace"]);
    assert_eq!(steps(&facts(bare(), &[1], &[])), ["-feed +feed_inserts t1"]);
    assert_eq!(steps(&facts(usable(), &[1], &[1])), ["-feed_inserts t1"]);
    assert_eq!(steps(&facts(bare(), &[1], &[1])), ["-feed t1"]);
}

#[test]
fn what_breaks_the_application_comes_first_and_what_is_only_tidier_last() {
    let unwanted = TableFacts { extension: true, ..table(1, IdentityFacts::Usable) };
    let tables = vec![unwanted, table(2, IdentityFacts::Usable), table(3, NO_KEY)];
    assert_eq!(steps(&facts(tables, &[1, 3], &[])), ["-feed +feed_inserts t3", "+feed t2 rows", "-feed t1"]);
}

#[test]
fn a_partitioned_table_is_whole_only_if_that_can_break_no_partition() {
    let usable = || leaf(2, 1, IdentityFacts::Usable);
    let none: [&str; 0] = [];
    // New to the feed: the root's step takes the partitions along; they are listed the next time.
    assert_eq!(steps(&facts(vec![root(1), usable()], &[], &[])), ["+feed t1 rows"]);
    assert_eq!(steps(&facts(vec![root(1), usable()], &[1], &[])), ["+feed t2"]);
    assert_eq!(steps(&facts(vec![root(1), usable()], &[1, 2], &[])), none);
    // One partition could break: the root moves to inserts at once, usable partitions stay whole by themselves.
    let broken = leaf(3, 1, IdentityFacts::Nothing { primary_key: true });
    assert_eq!(
        steps(&facts(vec![root(1), usable(), broken.clone()], &[1, 2], &[])),
        ["-feed +feed_inserts t1", "+feed_inserts t3"]
    );
    assert_eq!(
        steps(&facts(vec![root(1), usable(), broken], &[], &[])),
        ["+feed t2 rows", "+feed_inserts t1 rows"]
    );
    // A root without a key gives its future partitions none.
    let keyless = TableFacts { identity: NO_KEY, ..root(1) };
    assert_eq!(steps(&facts(vec![keyless.clone(), usable()], &[2], &[1])), none);
    // A partition of which inserts were published through its root.
    assert_eq!(steps(&facts(vec![keyless, usable()], &[], &[1])), ["+feed t2 replace"]);
}

#[test]
fn a_partition_that_was_detached_stays_where_it_is() {
    let none: [&str; 0] = [];
    assert_eq!(steps(&facts(vec![root(1), table(2, IdentityFacts::Usable)], &[1, 2], &[])), none);
}

#[test]
fn own_temporary_and_unlogged_tables_are_never_published() {
    let own =
        TableFacts { name: RelationName::new("walcast", "relation"), ..table(1, IdentityFacts::Usable) };
    let unlogged = TableFacts { permanent: false, ..table(2, IdentityFacts::Usable) };
    let none: [&str; 0] = [];
    assert_eq!(steps(&facts(vec![own.clone(), unlogged], &[], &[])), none);
    assert_eq!(steps(&facts(vec![own], &[1], &[])), ["-feed relation"]);
}

#[test]
fn missing_publications_are_created_and_foreign_ones_are_left_alone() {
    let mut facts = facts(vec![], &[], &[]);
    facts.publications.remove(0);
    assert_eq!(
        steps(&facts),
        ["CREATE PUBLICATION \"feed\" WITH (publish = 'insert, update, delete, truncate', \
         publish_via_partition_root = false);"]
    );
    facts.publications.push(PublicationFacts { name: "feed".into(), all_tables: true, ..Default::default() });
    let plan = Plan::new(&facts, &PublicationSettings::new("feed"));
    assert_eq!(plan.steps, []);
    assert!(plan.findings[0].problem.contains("FOR ALL TABLES"), "{:?}", plan.findings);
}

#[test]
fn a_given_publication_is_used_as_it_is_with_a_word_about_what_it_breaks() {
    let mut settings = PublicationSettings::new("feed");
    settings.manage = false;
    let mut facts = facts(vec![table(1, NO_KEY), table(2, NO_KEY)], &[1], &[]);
    facts.publications[0].via_root = true;
    let plan = Plan::new(&facts, &settings);
    assert_eq!(plan.steps, []);
    let found: Vec<&str> = plan.findings.iter().filter_map(|finding| finding.statement.as_deref()).collect();
    assert_eq!(
        found,
        [
            "ALTER TABLE \"public\".\"t1\" REPLICA IDENTITY FULL;",
            "ALTER PUBLICATION \"feed\" SET (publish_via_partition_root = false);"
        ]
    );
    assert_eq!(settings.names(), ["feed"]);
}

#[test]
fn for_all_tables_is_made_only_when_asked_for_and_needs_a_superuser() {
    let mut settings = PublicationSettings::new("feed");
    settings.selection = Selection::ForAllTables;
    let mut facts = facts(vec![table(1, NO_KEY)], &[], &[]);
    facts.publications.clear();
    let plan = Plan::new(&facts, &settings);
    assert_eq!(plan.administrator_statements(), ["CREATE PUBLICATION \"feed\" FOR ALL TABLES;"]);
    assert!(plan.findings[0].problem.contains("UPDATE and DELETE on it fail"), "{:?}", plan.findings);
}

#[test]
fn the_plan_knows_what_is_published_at_its_end() {
    let usable = || IdentityFacts::Usable;
    let all = facts(vec![table(1, usable()), table(2, NO_KEY), root(3), leaf(4, 3, usable())], &[1, 2], &[]);
    let published = |settings: &PublicationSettings| {
        let tables = Plan::by_hand(&all, settings).tables?;
        Some(tables.into_iter().map(Oid::get).collect::<Vec<_>>())
    };
    let mut settings = PublicationSettings::new("feed");
    assert_eq!(published(&settings), Some(vec![1, 2, 3, 4]));
    // Not what the publications have and are to lose.
    settings.selection = Selection::Listed(vec![RelationName::new("public", "t3")]);
    assert_eq!(published(&settings), Some(vec![3, 4]));
    settings.manage = false;
    assert_eq!(published(&settings), None);
    let every = PublicationSettings { selection: Selection::ForAllTables, ..PublicationSettings::new("new") };
    assert_eq!(published(&every), Some(vec![1, 2, 3, 4]));
}

#[test]
fn a_role_that_cannot_create_the_publications_cannot_add_its_own_tables_either() {
    let mut facts = facts(vec![table(1, IdentityFacts::Usable)], &[], &[]);
    facts.publications.clear();
    assert_eq!(Plan::new(&facts, &PublicationSettings::new("feed")).administrator_statements(), [""; 0]);
    facts.role.create = false;
    let plan = Plan::new(&facts, &PublicationSettings::new("feed"));
    assert_eq!(plan.administrator_statements(), plan.statements());
    assert!(plan.statements().last().unwrap().ends_with("ADD TABLE ONLY \"public\".\"t1\";"), "{plan:?}");
}

#[test]
fn whoever_publishes_a_table_for_walcast_lets_it_be_read_too() {
    let foreign = TableFacts { owned: false, select: false, ..table(1, IdentityFacts::Usable) };
    let statement = |foreign: TableFacts| {
        let plan = Plan::new(&facts(vec![foreign], &[], &[]), &PublicationSettings::new("feed"));
        plan.findings[0].statement.clone().unwrap()
    };
    let add = "ALTER PUBLICATION \"feed\" ADD TABLE ONLY \"public\".\"t1\";";
    let grant = "GRANT SELECT ON \"public\".\"t1\" TO \"walcast\";";
    assert_eq!(statement(foreign.clone()), format!("{add} {grant}"));
    let hidden = TableFacts { usage: false, ..foreign.clone() };
    assert_eq!(statement(hidden), format!("{add} GRANT USAGE ON SCHEMA \"public\" TO \"walcast\"; {grant}"));
    assert_eq!(statement(TableFacts { select: true, ..foreign }), add);
}

#[test]
fn whoever_mends_the_identity_of_a_table_that_walcast_may_not_move_moves_it_too() {
    let statement = |facts: &Facts| {
        let plan = Plan::new(facts, &PublicationSettings::new("feed"));
        plan.findings[0].statement.clone().unwrap()
    };
    let full = "ALTER TABLE \"public\".\"t1\" REPLICA IDENTITY FULL;";
    assert_eq!(statement(&facts(vec![table(1, NO_KEY)], &[], &[1])), full);
    // It enters before it leaves, so that there is no moment without it.
    let moved = format!(
        "{full} ALTER PUBLICATION \"feed\" ADD TABLE ONLY \"public\".\"t1\"; \
         ALTER PUBLICATION \"feed_inserts\" DROP TABLE ONLY \"public\".\"t1\";"
    );
    let foreign = || TableFacts { owned: false, ..table(1, NO_KEY) };
    assert_eq!(statement(&facts(vec![foreign()], &[], &[1])), moved);
    // Whether somebody has published it for inserts by then or has still to.
    assert_eq!(statement(&facts(vec![foreign()], &[], &[])), moved);
    let mut of_others = facts(vec![table(1, NO_KEY)], &[], &[1]);
    of_others.publications[1].owned = false;
    assert_eq!(statement(&of_others), moved);
}

#[test]
fn a_table_that_comes_between_two_questions_is_news_as_listed_and_not_as_covered() {
    let names = ["feed".to_owned(), "feed_inserts".to_owned()];
    let (old, new) = (table(1, IdentityFacts::Usable), table(2, IdentityFacts::Usable));
    let mut published = Published::default();
    // What there was is no news to anybody; the new one is listed already, and not yet among the tables.
    published.see(&facts(vec![old.clone()], &[1, 2], &[]), &names);
    let after = facts(vec![old, new], &[1, 2], &[]);
    let news = published.see(&after, &names);
    let news: Vec<_> = news.into_iter().map(|(table, news)| (table.oid.get(), news)).collect();
    assert_eq!(news, [(2, News::Listed)]);
}
