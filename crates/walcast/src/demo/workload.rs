//! What the shop's customers do: a few transactions a second, most of them over several rows.

use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;
use tokio_postgres::Transaction;
use walcast_postgres::{ConnectionConfig, Error, Session};

/// How long to wait before a lost session is made again.
const RETRY: Duration = Duration::from_secs(1);

/// Delivered and cancelled orders that are kept; older ones are deleted, so that the demo can run for days.
const DONE_ORDERS_MAX: i64 = 50;

/// New customers are made of these.
const FIRST_NAMES: [&str; 12] =
    ["Ines", "Jonas", "Kavya", "Liam", "Mei", "Noor", "Oskar", "Priya", "Quentin", "Rosa", "Sven", "Tomasz"];
const LAST_NAMES: [&str; 12] = [
    "Almeida", "Brandt", "Chen", "Dubois", "Eriksen", "Farah", "Gupta", "Haas", "Ivanova", "Jansen", "Kim",
    "Lopez",
];
const CITIES: [&str; 8] = ["Porto", "Leipzig", "Pune", "Galway", "Taipei", "Fez", "Bergen", "Cali"];

/// One transaction of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    PlaceOrder,
    Advance { from: &'static str, to: &'static str },
    Cancel,
    Restock,
    ChangePrice,
    NewCustomer,
    DeleteOldOrders,
}

/// Each with how often it is done, relative to the others.
const DEEDS: [(Deed, u32); 9] = [
    // More orders could be handled than are placed, so that none pile up.
    (Deed::PlaceOrder, 24),
    (Deed::Advance { from: "placed", to: "paid" }, 25),
    (Deed::Advance { from: "paid", to: "shipped" }, 26),
    (Deed::Advance { from: "shipped", to: "delivered" }, 27),
    (Deed::Cancel, 5),
    (Deed::Restock, 4),
    (Deed::ChangePrice, 3),
    (Deed::NewCustomer, 3),
    (Deed::DeleteOldOrders, 3),
];

/// Does `per_second` transactions a second on average, unevenly, until it is dropped. A lost session is made again, for
/// ever: who restarts the demo's Postgres sees the shop go on.
pub(super) async fn run(config: ConnectionConfig, per_second: f64) {
    loop {
        if let Err(error) = trade(&config, per_second).await {
            tracing::info!(%error, "the shop has lost its database, and tries again");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn trade(config: &ConnectionConfig, per_second: f64) -> Result<(), Error> {
    let mut session = Session::connect(config, "walcast demo shop").await?;
    loop {
        let pause = rand::rng().random_range(0.2..1.8) / per_second;
        tokio::time::sleep(Duration::from_secs_f64(pause)).await;
        let deed = DEEDS
            .choose_weighted(&mut rand::rng(), |(_, weight)| *weight)
            .map_or(Deed::PlaceOrder, |(deed, _)| *deed);
        let transaction = session.transaction().await?;
        perform(&transaction, deed).await?;
        transaction.commit().await?;
    }
}

async fn perform(transaction: &Transaction<'_>, deed: Deed) -> Result<(), tokio_postgres::Error> {
    match deed {
        Deed::PlaceOrder => place_order(transaction).await,
        Deed::Advance { from, to } => advance(transaction, from, to).await,
        Deed::Cancel => cancel(transaction).await,
        Deed::Restock => restock(transaction).await,
        Deed::ChangePrice => change_price(transaction).await,
        Deed::NewCustomer => new_customer(transaction).await,
        Deed::DeleteOldOrders => delete_old_orders(transaction).await,
    }
}

/// One to three products, from those in stock: an order, its lines, the stock, the total.
async fn place_order(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    let products: i64 = rand::rng().random_range(1..=3);
    let placed = transaction
        .query_one(
            "INSERT INTO public.orders (customer_id)
             SELECT id FROM public.customers ORDER BY random() LIMIT 1 RETURNING id",
            &[],
        )
        .await?;
    let order: i32 = placed.get(0);
    // In the order of their ids, so that two shops could not wait for each other.
    transaction
        .execute(
            "WITH chosen AS (
                 SELECT id, price, 1 + (id + $1) % 3 AS quantity FROM public.products
                 WHERE stock >= 3 ORDER BY random() LIMIT $2
             ), taken AS (
                 UPDATE public.products p SET stock = p.stock - c.quantity FROM chosen c WHERE p.id = c.id
             )
             INSERT INTO public.order_lines (order_id, line, product_id, quantity, price)
             SELECT $1, row_number() OVER (ORDER BY id), id, quantity, price FROM chosen ORDER BY id",
            &[&order, &products],
        )
        .await?;
    transaction
        .execute(
            "UPDATE public.orders SET total = (
                 SELECT coalesce(sum(quantity * price), 0) FROM public.order_lines WHERE order_id = $1
             ) WHERE id = $1",
            &[&order],
        )
        .await?;
    Ok(())
}

/// The oldest order in one status goes on to the next.
async fn advance(transaction: &Transaction<'_>, from: &str, to: &str) -> Result<(), tokio_postgres::Error> {
    transaction
        .execute(
            "UPDATE public.orders SET status = $2::text::public.order_status
             WHERE id = (SELECT min(id) FROM public.orders WHERE status = $1::text::public.order_status)",
            &[&from, &to],
        )
        .await?;
    Ok(())
}

/// The newest unpaid order; its products go back to the shelf.
async fn cancel(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    transaction
        .execute(
            "WITH cancelled AS (
                 UPDATE public.orders SET status = 'cancelled'
                 WHERE id = (SELECT max(id) FROM public.orders WHERE status = 'placed') RETURNING id
             )
             UPDATE public.products p SET stock = p.stock + l.quantity
             FROM public.order_lines l JOIN cancelled c ON l.order_id = c.id WHERE p.id = l.product_id",
            &[],
        )
        .await?;
    Ok(())
}

/// What is nearly sold out arrives.
async fn restock(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    transaction
        .execute(
            "UPDATE public.products SET stock = stock + 20 + floor(random() * 60)::int
             WHERE id IN (SELECT id FROM public.products WHERE stock < 20 ORDER BY stock LIMIT 2)",
            &[],
        )
        .await?;
    Ok(())
}

async fn change_price(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    transaction
        .execute(
            "UPDATE public.products SET price = greatest(1, round(price * (0.9 + random() * 0.2)::numeric, 1))
             WHERE id = (SELECT id FROM public.products ORDER BY random() LIMIT 1)",
            &[],
        )
        .await?;
    Ok(())
}

async fn new_customer(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    let pick = |words: &[&'static str]| words.choose(&mut rand::rng()).copied().unwrap_or_default();
    let (first, last, city) = (pick(&FIRST_NAMES), pick(&LAST_NAMES), pick(&CITIES));
    let name = format!("{first} {last}");
    let email = format!("{}.{}@example.org", first.to_lowercase(), last.to_lowercase());
    transaction
        .execute(
            "INSERT INTO public.customers (name, email, city) VALUES ($1, $2, $3) ON CONFLICT (email) DO NOTHING",
            &[&name, &email, &city],
        )
        .await?;
    Ok(())
}

/// The oldest of too many, fifteen at most; their lines go with them.
async fn delete_old_orders(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    transaction
        .execute(
            "WITH done AS (SELECT id FROM public.orders WHERE status IN ('delivered', 'cancelled'))
             DELETE FROM public.orders WHERE id IN (
                 SELECT id FROM done ORDER BY id LIMIT least(15, greatest(0, (SELECT count(*) FROM done) - $1))
             )",
            &[&DONE_ORDERS_MAX],
        )
        .await?;
    Ok(())
}
