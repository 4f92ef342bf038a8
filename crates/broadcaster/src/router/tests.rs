use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;
use walcast_filter::Claims;
use walcast_model::{Cursor, Part, Relation};
use walcast_policy::Policies;

use crate::catalog::Catalog;
use crate::limits::Limits;
use crate::shape::Next;
use crate::testing::{Bench, FakeSource, Insert, at, full, key, part, request, schema, table};
use crate::wanted::ShapeKey;

fn catalog() -> Catalog {
    Catalog::new(Arc::new(FakeSource::default()))
}

fn shape(bench: &Bench, fields: &str) -> super::ShapeHandle {
    let shape = bench.world.router.shape(key(fields));
    bench.world.router.listen(&shape);
    shape
}

#[tokio::test]
async fn only_the_shapes_concerned_are_woken() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let shapes = ["public.a", "public.b", "public.*", "other.*", "*"]
        .map(|name| shape(&bench, &format!(r#""tables":[{{"table":"{name}"}}]"#)));
    let mut before = [at(1); 5];
    let mut woken = || {
        let now = shapes.each_ref().map(|shape| shape.concerned());
        let was = std::mem::replace(&mut before, now);
        std::array::from_fn(|index| now[index] > was[index])
    };
    let (a, b) = (table("a", &[]), table("b", &[]));
    bench.append(vec![part(10, 0, &[Insert(1, a)], Some(20))], 0).await;
    bench.route();
    assert_eq!(woken(), [true, false, true, false, true]);
    bench.append(vec![part(20, 0, &[Insert(2, b)], Some(30))], 0).await;
    bench.route();
    assert_eq!(woken(), [false, true, true, false, true]);
    assert!(matches!(shapes[0].next(at(20)), Next::Nothing));
    assert_eq!(bench.world.router.seen(), at(30));
}

#[tokio::test]
async fn equal_shapes_are_one_and_the_last_session_takes_it_along() {
    let bench = Bench::new(1 << 20, Limits::default());
    let tables = r#""tables":[{"table":"public.a"},{"table":"other.*"}]"#;
    let (one, two) = (shape(&bench, tables), shape(&bench, tables));
    assert!(Arc::ptr_eq(&one.shape, &two.shape));
    drop(one);
    assert_eq!(bench.world.router.index().len(), 1);
    drop(two);
    let index = bench.world.router.index();
    assert!(index.is_empty());
}

#[tokio::test]
async fn frames_are_encoded_once_for_all_sessions_of_a_shape_and_kept_within_bounds() {
    let limits = Limits { encoded_bytes_max: 2000, ..Limits::default() };
    let mut bench = Bench::new(1 << 20, limits);
    let tables = r#""tables":[{"table":"*"}]"#;
    let (one, two) = (shape(&bench, tables), shape(&bench, tables));
    let a = table("a", &["x"]);
    let parts: Vec<Part> =
        (1..30).map(|n| part(n * 10, 0, &[Insert(n, a.clone())], Some(n * 10 + 10))).collect();
    bench.append(parts.clone(), 0).await;
    bench.route();
    for part in &parts {
        let (first, second) = (one.frames(part), two.frames(part));
        assert!(Arc::ptr_eq(&first, &second));
    }
    let kept_bytes = || {
        let entries = bench.world.router.kept.lock().unwrap().len();
        bench.world.router.kept_bytes.load(Ordering::Relaxed) + entries * super::KEPT_FIXED_BYTES
    };
    assert!((1000..=2000).contains(&kept_bytes()), "{}", kept_bytes());
    assert!(matches!(one.next(at(1)), Next::Part { encoded: None, .. }));
    assert!(matches!(one.next(at(290)), Next::Part { encoded: Some(_), .. }));
    // Alone, it keeps nothing for others.
    drop(two);
    let alone = one.frames(&parts[0]);
    assert!(!Arc::ptr_eq(&alone, &one.frames(&parts[0])));
}

#[tokio::test]
async fn a_router_that_the_feed_overtakes_wakes_everybody_to_look_for_themselves() {
    let mut bench = Bench::new(1, Limits::default());
    let lost = shape(&bench, r#""tables":[{"table":"public.a"}]"#);
    let a = table("a", &[]);
    bench
        .append(
            vec![part(10, 0, &[Insert(1, a.clone())], Some(20)), part(20, 0, &[Insert(2, a)], Some(30))],
            0,
        )
        .await;
    let cancel = CancellationToken::new();
    let following = tokio::spawn({
        let (router, cancel) = (bench.world.router.clone(), cancel.clone());
        async move { router.follow(&catalog(), cancel).await }
    });
    poll_fn(|cx| lost.poll_concerned(at(1), cx)).await;
    assert!(matches!(lost.next(at(1)), Next::Unknown));
    bench.world.router.watch_seen().wait_for(|seen| *seen == at(30)).await.unwrap();
    cancel.cancel();
    following.await.unwrap();
}

#[tokio::test]
async fn a_shape_remembers_as_much_for_each_of_its_sessions() {
    let limits = Limits { shape_hits_max: 1, ..Limits::default() };
    let mut bench = Bench::new(1 << 20, limits);
    let tables = r#""tables":[{"table":"*"}]"#;
    let (one, a) = (shape(&bench, tables), table("a", &["x"]));
    let mut two = None;
    for n in 1..=6 {
        if n == 4 {
            two = Some(shape(&bench, tables));
        }
        bench.append(vec![part(n * 10, 0, &[Insert(n, a.clone())], Some(n * 10 + 10))], 0).await;
        bench.route();
        let remembered = if two.is_some() { 2 } else { 1 };
        let known = |back: u64| !matches!(one.next(at((n + 1 - back) * 10)), Next::Unknown);
        if n > remembered {
            assert!(!known(remembered + 1) && known(remembered), "{n}");
        }
    }
}

#[tokio::test]
async fn frames_that_a_shape_let_go_of_do_not_count_any_more() {
    // Two sessions.
    let limits = Limits { shape_hits_max: 1, ..Limits::default() };
    let mut bench = Bench::new(1 << 20, limits);
    let tables = r#""tables":[{"table":"*"}]"#;
    let (one, two) = (shape(&bench, tables), shape(&bench, tables));
    let a = table("a", &["x"]);
    let counted = || bench_bytes(&one);
    let mut most = 0;
    for n in 1..20 {
        let part = part(n * 10, 0, &[Insert(n, a.clone())], Some(n * 10 + 10));
        bench.append(vec![part.clone()], 0).await;
        bench.route();
        let frames = one.frames(&part);
        most = most.max(frames.bytes() * 2);
        assert!(counted() <= most, "{} of {most}", counted());
    }
    assert!(counted() > 0);
    one.overtaken(at(1000));
    assert_eq!(counted(), 0);
    drop((one, two));
}

fn bench_bytes(shape: &super::ShapeHandle) -> usize {
    shape.router.kept_bytes.load(Ordering::Relaxed)
}

#[tokio::test]
async fn shapes_that_name_the_same_are_forgotten_one_by_one() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let shapes = ["w", "x", "y"].map(|column| {
        let entry = |table: &str| format!(r#"{{"table":"{table}","columns":["{column}"]}}"#);
        let entries = ["*", "public.*", "public.a"].map(entry).join(",");
        shape(&bench, &format!(r#""tables":[{entries}]"#))
    });
    let [first, second, third] = shapes;
    drop(second);
    {
        let index = bench.world.router.index();
        assert_eq!(index.len(), 2);
    }
    bench.append(vec![part(10, 0, &[Insert(1, table("a", &[]))], Some(20))], 0).await;
    bench.route();
    assert!(first.concerned() == at(20) && third.concerned() == at(20));
    drop((first, third));
    let index = bench.world.router.index();
    assert!(index.is_empty());
}

#[tokio::test]
async fn a_router_that_is_cancelled_does_not_finish_what_there_is_to_do() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    bench.append(vec![part(10, 0, &[Insert(1, table("a", &[]))], Some(20))], 0).await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    bench.world.router.follow(&catalog(), cancel).await;
    assert_eq!(bench.world.router.seen(), at(1));
}

/// Shapes that take the rows of `a` with one value of `x` each, bound to this definition.
fn by_value(bench: &Bench, values: std::ops::Range<u64>, a: &Arc<Relation>) -> Vec<super::ShapeHandle> {
    let shape_of = |value| {
        let fields = format!(r#""tables":[{{"table":"public.a","where":"x = 'v{value}'"}}]"#);
        let shape = bench.world.router.shape(key(&fields));
        bench.world.router.bind(&shape, &schema(Arc::clone(a))).unwrap();
        bench.world.router.listen(&shape);
        shape
    };
    values.map(shape_of).collect()
}

/// The values whose shapes were woken by what comes after `before`.
fn woken(shapes: &[super::ShapeHandle], before: Cursor) -> Vec<usize> {
    (0..shapes.len()).filter(|index| shapes[*index].concerned() > before).collect()
}

#[tokio::test]
async fn a_change_wakes_those_whose_filter_it_is_in_and_one_that_is_in_none_wakes_nobody() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let a = full(&table("a", &["x"]));
    let shapes = by_value(&bench, 0..100, &a);
    bench.append(vec![part(10, 0, &[Insert(5, a.clone()), Insert(70, a.clone())], Some(20))], 0).await;
    bench.route();
    assert_eq!(woken(&shapes, at(1)), [5, 70]);
    bench.append(vec![part(20, 0, &[Insert(100, a.clone())], Some(30))], 0).await;
    bench.route();
    assert!(woken(&shapes, at(20)).is_empty());
    assert_eq!(bench.world.router.seen(), at(30));
}

#[tokio::test]
async fn equal_filters_are_looked_up_once_and_the_last_shape_takes_them_along() {
    let bench = Bench::new(1 << 20, Limits::default());
    let a = full(&table("a", &["x", "y"]));
    let shape_of = |entry: &str| {
        let shape = bench.world.router.shape(key(&format!(r#""tables":[{{"table":"public.a",{entry}}}]"#)));
        bench.world.router.bind(&shape, &schema(a.clone())).unwrap();
        bench.world.router.listen(&shape);
        shape
    };
    let shapes = [r#""where":"x = 'v1'""#, r#""columns":["x"],"where":"(X='v1')""#].map(shape_of);
    {
        let index = bench.world.router.index();
        assert_eq!((index.len(), index.predicates()), (2, 1));
    }
    // One that goes before it began to read.
    drop(bench.world.router.shape(key(r#""tables":[{"table":"public.a","where":"x = 'v2'"}]"#)));
    drop(shapes);
    let index = bench.world.router.index();
    assert!(index.is_empty());
}

#[tokio::test]
async fn filters_are_bound_to_a_new_definition_before_its_changes_and_the_source_is_asked_once() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let shapes = by_value(&bench, 0..100, &full(&table("a", &["x"])));
    let altered = full(&table("a", &["x", "y"]));
    let source = Arc::new(FakeSource::default());
    let cancel = CancellationToken::new();
    let following = tokio::spawn({
        let (router, cancel, source) = (bench.world.router.clone(), cancel.clone(), source.clone());
        async move { router.follow(&Catalog::new(source), cancel).await }
    });
    let changes = [Insert(5, altered.clone()), Insert(100, altered.clone())];
    bench
        .append(vec![part(10, 0, &changes, Some(20)), part(20, 0, &[Insert(6, altered)], Some(30))], 0)
        .await;
    bench.world.router.watch_seen().wait_for(|seen| *seen == at(30)).await.unwrap();
    assert_eq!(woken(&shapes, at(1)), [5, 6]);
    assert_eq!(source.asked.load(Ordering::Relaxed), 1);
    cancel.cancel();
    following.await.unwrap();
}

/// A router that follows its feed; what it asks of the source; and how it is told to stop.
fn following(bench: &Bench) -> (tokio::task::JoinHandle<()>, Arc<FakeSource>, CancellationToken) {
    let (source, cancel) = (Arc::new(FakeSource::default()), CancellationToken::new());
    let (router, catalog, until) = (bench.world.router.clone(), Catalog::new(source.clone()), cancel.clone());
    (tokio::spawn(async move { router.follow(&catalog, until).await }), source, cancel)
}

#[tokio::test]
async fn a_table_that_has_got_a_column_goes_on_at_once_and_filters_are_bound_beside_what_comes() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let (a, longer) = (full(&table("a", &["x"])), full(&table("a", &["x", "y"])));
    let longest = full(&table("a", &["x", "y", "z"]));
    let shapes = by_value(&bench, 0..600, &a);
    let both =
        bench.world.router.shape(key(r#""tables":[{"table":"public.a","where":"x = 'v7' AND x <> 'v7'"}]"#));
    bench.world.router.bind(&both, &schema(a.clone())).unwrap();
    bench.world.router.listen(&both);
    let (following, source, cancel) = following(&bench);
    let is_bound = |relation| shapes.iter().filter(|shape| shape.wanted().choice(relation).is_some()).count();
    for (number, relation) in [(1, &longer), (2, &longest)] {
        let (lsn, before) = (number * 20, bench.world.router.seen());
        let parts = vec![
            part(lsn, 0, &[Insert(7, relation.clone()), Insert(600, relation.clone())], Some(lsn + 10)),
            part(lsn + 10, 0, &[Insert(599, relation.clone())], Some(lsn + 20)),
        ];
        bench.append(parts, 0).await;
        bench.world.router.watch_seen().wait_for(|seen| *seen == at(lsn + 20)).await.unwrap();
        assert!(is_bound(relation) < 600);
        assert_eq!(woken(&shapes, before), [7, 599]);
        // Not bound yet, it finds out by itself.
        assert!(both.concerned() > before);
        assert_eq!(source.asked.load(Ordering::Relaxed), usize::try_from(number).unwrap());
        while is_bound(relation) < 600 {
            yield_now().await;
        }
    }
    let before = bench.world.router.seen();
    bench.append(vec![part(60, 0, &[Insert(7, longest.clone())], Some(70))], 0).await;
    bench.world.router.watch_seen().wait_for(|seen| *seen == at(70)).await.unwrap();
    assert_eq!(woken(&shapes, before), [7]);
    assert!(both.concerned() <= before, "bound, it is told of its own rows alone");
    assert_eq!(bench.world.router.index().predicates(), 601);
    cancel.cancel();
    following.await.unwrap();
    drop((shapes, both));
    assert!(bench.world.router.index().is_empty());
}

#[tokio::test]
async fn a_transaction_that_adds_a_column_between_its_rows_wakes_nobody_else() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let (a, longer) = (full(&table("a", &["x"])), full(&table("a", &["x", "y"])));
    let shapes = by_value(&bench, 0..600, &a);
    let (following, _, cancel) = following(&bench);
    let changes = [Insert(3, a), Insert(5, longer.clone())];
    bench.append(vec![part(10, 0, &changes, Some(20)), part(20, 0, &[Insert(7, longer)], Some(30))], 0).await;
    bench.world.router.watch_seen().wait_for(|seen| *seen == at(30)).await.unwrap();
    assert_eq!(woken(&shapes, at(1)), [3, 5, 7]);
    cancel.cancel();
    following.await.unwrap();
}

#[tokio::test]
async fn who_takes_nothing_of_a_table_until_it_has_got_a_column_is_told_of_it_from_then_on() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let (a, longer) = (full(&table("a", &["x"])), full(&table("a", &["x", "y"])));
    let named = by_value(&bench, 0..3, &a);
    // A policy for many tables gives nothing of those that it does not fit.
    let policies = "[[policy]]\nrole = \"r\"\ntable = \"*\"\nwhere = \"y = claims.sub\"\n";
    let rights = Policies::parse(policies).unwrap().rights("r", &Claims::parse(r#"{"sub":"v1"}"#).unwrap());
    let asked = request(r#""tables":[{"table":"*"}]"#).unwrap();
    let by_pattern = bench.world.router.shape(ShapeKey::resolve(&asked.tables, &rights).unwrap());
    bench.world.router.bind(&by_pattern, &schema(a.clone())).unwrap();
    bench.world.router.listen(&by_pattern);
    let (following, _, cancel) = following(&bench);
    bench.append(vec![part(10, 0, &[Insert(1, a)], Some(20))], 0).await;
    bench.world.router.watch_seen().wait_for(|seen| *seen == at(20)).await.unwrap();
    assert_eq!((woken(&named, at(1)), by_pattern.concerned() > at(1)), (vec![1], false));
    bench.append(vec![part(20, 0, &[Insert(1, longer)], Some(30))], 0).await;
    bench.world.router.watch_seen().wait_for(|seen| *seen == at(30)).await.unwrap();
    assert_eq!((woken(&named, at(20)), by_pattern.concerned() > at(20)), (vec![1], true));
    cancel.cancel();
    following.await.unwrap();
}

#[tokio::test]
async fn who_comes_and_goes_while_the_index_of_a_new_definition_is_made_is_in_it_or_is_not() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let (a, altered) = (full(&table("a", &["x"])), full(&table("a", &["y", "x"])));
    let mut shapes: Vec<_> = (0..600).zip(by_value(&bench, 0..600, &a)).collect();
    let cancel = CancellationToken::new();
    let following = tokio::spawn({
        let (router, cancel) = (bench.world.router.clone(), cancel.clone());
        async move { router.follow(&catalog(), cancel).await }
    });
    let change = |value: u64| Insert(value, altered.clone());
    let parts = vec![
        part(10, 0, &[Insert(7, a.clone())], Some(20)),
        part(20, 0, &[change(3), change(5), change(590), change(600)], Some(30)),
    ];
    bench.append(parts, 0).await;
    let router = bench.world.router.clone();
    while router.index().made_aside().is_none_or(|made| made == 0) {
        yield_now().await;
    }
    // Some are in it and some are not; what came before it does not wait.
    assert!(router.index().made_aside().is_some_and(|made| made < 500));
    assert_eq!(router.seen(), at(20));
    let told = |shapes: &[(u64, super::ShapeHandle)], before| -> Vec<u64> {
        let told = shapes.iter().filter(|(_, shape)| shape.concerned() > before);
        told.map(|(value, _)| *value).collect()
    };
    assert_eq!(told(&shapes, at(1)), [7]);
    shapes.retain(|(value, _)| ![3, 590].contains(value));
    shapes.extend((600..602).zip(by_value(&bench, 600..602, &a)));
    bench.world.router.watch_seen().wait_for(|seen| *seen == at(30)).await.unwrap();
    assert_eq!(told(&shapes, at(20)), [5, 600]);
    assert_eq!(router.index().predicates(), 600);
    assert_eq!(router.index().made_aside(), None);
    cancel.cancel();
    following.await.unwrap();
    drop(shapes);
    assert!(router.index().is_empty());
}

#[tokio::test]
async fn who_goes_while_it_is_being_taken_into_a_new_definition_is_not_in_it() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let (a, altered) = (full(&table("a", &["x"])), full(&table("a", &["x", "y"])));
    let mut shapes = by_value(&bench, 0..3, &a);
    let router = bench.world.router.clone();
    router.index().begin(&altered);
    let some = router.index().filtered_after(altered.name(), None, 10);
    drop(shapes.remove(0));
    // And one of those that stay is bound by its session.
    router.bind(&shapes[0], &schema(altered.clone())).unwrap();
    router.index().take_in(&altered, &some);
    router.index().take_in(&altered, &[]);
    bench.append(vec![part(10, 0, &[Insert(0, altered.clone()), Insert(2, altered)], Some(20))], 0).await;
    bench.route();
    // The other one has to look for itself.
    assert_eq!(woken(&shapes, at(1)), [1]);
    drop((shapes, some));
    assert!(router.index().is_empty());
}
