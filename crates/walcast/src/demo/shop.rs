//! The demo's database: a small shop.

use walcast_postgres::{Error, Session};

/// Its name.
pub(super) const DATABASE: &str = "shop";

const SCHEMA: &str = "
CREATE TYPE public.order_status AS ENUM ('placed', 'paid', 'shipped', 'delivered', 'cancelled');

CREATE TABLE public.customers (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL UNIQUE,
    city text NOT NULL,
    since date NOT NULL DEFAULT current_date
);
CREATE TABLE public.products (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    price numeric(10,2) NOT NULL CHECK (price > 0),
    stock int NOT NULL CHECK (stock >= 0),
    tags text[] NOT NULL DEFAULT '{}'
);
CREATE TABLE public.orders (
    id int GENERATED ALWAYS AS IDENTITY (START WITH 1001) PRIMARY KEY,
    customer_id int NOT NULL REFERENCES public.customers,
    status public.order_status NOT NULL DEFAULT 'placed',
    total numeric(12,2) NOT NULL DEFAULT 0,
    placed_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE public.order_lines (
    order_id int REFERENCES public.orders ON DELETE CASCADE,
    line smallint,
    product_id int NOT NULL REFERENCES public.products,
    quantity int NOT NULL CHECK (quantity > 0),
    price numeric(10,2) NOT NULL,
    PRIMARY KEY (order_id, line)
);
CREATE INDEX ON public.orders (status, id);

INSERT INTO public.products (name, price, stock, tags) VALUES
    ('Bread knife, 22 cm', 34.90, 40, '{kitchen,steel}'),
    ('Cast-iron pan', 59.00, 25, '{kitchen,iron}'),
    ('Walnut cutting board', 42.50, 30, '{kitchen,wood}'),
    ('Linen tea towel', 9.80, 120, '{kitchen,linen}'),
    ('Stoneware mug', 14.00, 90, '{table,ceramic}'),
    ('Carafe, 1 l', 24.00, 45, '{table,glass}'),
    ('Beeswax candle', 7.50, 150, '{home}'),
    ('Wool blanket', 89.00, 20, '{home,wool}'),
    ('Desk lamp', 74.90, 18, '{office,light}'),
    ('Notebook, dotted', 11.20, 200, '{office,paper}'),
    ('Fountain pen', 38.00, 35, '{office}'),
    ('Bicycle bell', 12.90, 60, '{outdoor,brass}'),
    ('Enamel coffee pot', 32.00, 28, '{kitchen,outdoor}'),
    ('Hammock', 64.00, 15, '{outdoor,cotton}'),
    ('Garden shears', 27.50, 33, '{outdoor,steel}'),
    ('Seed box', 18.00, 70, '{outdoor}');

INSERT INTO public.customers (name, email, city) VALUES
    ('Amara Okafor', 'amara@example.org', 'Lagos'),
    ('Bruno Keller', 'bruno@example.org', 'Basel'),
    ('Chiara Conti', 'chiara@example.org', 'Turin'),
    ('Daniel Nowak', 'daniel@example.org', 'Gdansk'),
    ('Eun-ji Park', 'eunji@example.org', 'Busan'),
    ('Freya Lindqvist', 'freya@example.org', 'Uppsala'),
    ('Gaspar Moreno', 'gaspar@example.org', 'Valencia'),
    ('Hana Sato', 'hana@example.org', 'Kobe');
";

/// Creates tables and first rows in an empty database. The session must be a superuser's, or the owner's.
pub(super) async fn create(session: &Session) -> Result<(), Error> {
    Ok(session.batch_execute(SCHEMA).await?)
}
