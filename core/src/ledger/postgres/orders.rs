//! Orders, offers and claims.

use std::collections::HashMap;

use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::Row;
use uuid::Uuid;

use super::super::rows::{as_placed, same_order};
use super::super::{Claim, Placed};
use super::decode::{
    execute, get, item_status, item_word, maybe, number, order_status, query, unreadable, word,
};
use super::link::Failure;
use crate::id::{CustomerId, OrderId, ShopperId, StoreId};
use crate::trip::{Item, Order, OrderStatus};

/// Places an order and its lines.
pub(super) async fn place(client: &mut Object, order: Order) -> Result<Placed, Failure> {
    let order = as_placed(order)?;
    let tx = client.transaction().await?;
    // Looked for first: an order that is there stays there even if its store should go.
    if let Some(there) = self::order(&tx, order.id).await? {
        return Ok(compare(&there, &order));
    }
    let store = "select 1 from stores where store_id = $1";
    if query(&tx, store, &[&order.store.get()]).await?.is_empty() {
        return Ok(Placed::UnknownStore);
    }
    let customer = "insert into customers (customer_id) values ($1) \
         on conflict (customer_id) do nothing";
    execute(&tx, customer, &[&order.customer.get()]).await?;
    let sql = "insert into orders (order_id, customer_id, store_id, currency, status) \
         values ($1, $2, $3, $4, 'PLACED') on conflict (order_id) do nothing";
    let currency = order.currency.code();
    let (customer, store) = (order.customer.get(), order.store.get());
    let new = execute(&tx, sql, &[&order.id.0, &customer, &store, &currency]).await?;
    if new == 0 {
        // Placed by another call since we looked; that call has committed.
        let there = self::order(&tx, order.id).await?;
        let there = there.ok_or_else(|| unreadable("order_id"))?;
        return Ok(compare(&there, &order));
    }
    put_items(&tx, &order).await?;
    tx.commit().await.map_err(Failure::committing)?;
    Ok(Placed::Now)
}

fn compare(there: &Order, order: &Order) -> Placed {
    if same_order(there, order) {
        Placed::Before
    } else {
        Placed::Differs
    }
}

async fn put_items(client: &impl GenericClient, order: &Order) -> Result<(), Failure> {
    let sql = "insert into items (order_id, line, product, category, quantity, listed, status) \
         select $1, p.line, p.product, p.category, p.quantity, p.listed, 'WANTED' \
         from unnest($2::integer[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[]) \
         as p (line, product, category, quantity, listed)";
    let items = &order.items;
    let lines: Vec<i32> = items
        .iter()
        .map(|item| i32::try_from(item.line).unwrap_or(i32::MAX))
        .collect();
    let products: Vec<i64> = items.iter().map(|item| item.product).collect();
    let categories: Vec<&str> = items.iter().map(|item| item.category.as_str()).collect();
    let quantities: Vec<i64> = items.iter().map(|item| i64::from(item.quantity)).collect();
    let listed: Vec<i64> = items.iter().map(|item| item.listed).collect();
    let params: super::decode::Params<'_> = &[
        &order.id.0,
        &lines,
        &products,
        &categories,
        &quantities,
        &listed,
    ];
    execute(client, sql, params).await?;
    Ok(())
}

pub(super) async fn order(
    client: &impl GenericClient,
    id: OrderId,
) -> Result<Option<Order>, Failure> {
    let sql = "select order_id, customer_id, store_id, currency, status, shopper_id \
         from orders where order_id = $1";
    let rows = query(client, sql, &[&id.0]).await?;
    Ok(with_items(client, &rows).await?.pop())
}

pub(super) async fn offers(
    client: &Object,
    store: StoreId,
    limit: u32,
) -> Result<Vec<Order>, Failure> {
    let sql = "select order_id, customer_id, store_id, currency, status, shopper_id \
         from orders where store_id = $1 and status = 'PLACED' \
         order by placed_at, order_id limit $2";
    let rows = query(client, sql, &[&store.get(), &i64::from(limit)]).await?;
    with_items(client, &rows).await
}

/// Orders from their rows, with their lines.
pub(super) async fn with_items(
    client: &impl GenericClient,
    rows: &[Row],
) -> Result<Vec<Order>, Failure> {
    let order = |row: &Row| -> Result<Order, Failure> {
        Ok(Order {
            id: OrderId(get(row, "order_id")?),
            customer: number::<CustomerId>(row, "customer_id")?,
            store: number::<StoreId>(row, "store_id")?,
            currency: word(row, "currency")?,
            status: order_status(row)?,
            shopper: maybe::<ShopperId>(row, "shopper_id")?,
            items: Vec::new(),
        })
    };
    let mut orders = rows.iter().map(order).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<OrderId> = orders.iter().map(|order| order.id).collect();
    let mut found = items(client, &ids).await?;
    for order in &mut orders {
        order.items = found.remove(&order.id).unwrap_or_default();
    }
    Ok(orders)
}

/// The lines of orders, each in order.
pub(super) async fn items(
    client: &impl GenericClient,
    orders: &[OrderId],
) -> Result<HashMap<OrderId, Vec<Item>>, Failure> {
    let ids: Vec<Uuid> = orders.iter().map(|order| order.0).collect();
    let mut all: HashMap<OrderId, Vec<Item>> = HashMap::with_capacity(ids.len());
    if ids.is_empty() {
        return Ok(all);
    }
    let sql = "select order_id, line, product, category, quantity, listed, actual, status \
         from items where order_id = any($1::uuid[]) order by order_id, line";
    for row in query(client, sql, &[&ids]).await? {
        let line: i32 = get(&row, "line")?;
        let item = Item {
            line: line.try_into().map_err(|_| unreadable("line"))?,
            product: get(&row, "product")?,
            category: get(&row, "category")?,
            quantity: number(&row, "quantity")?,
            listed: get(&row, "listed")?,
            actual: get(&row, "actual")?,
            status: item_status(&row)?,
        };
        all.entry(OrderId(get(&row, "order_id")?))
            .or_default()
            .push(item);
    }
    Ok(all)
}

/// Writes back where lines stand.
pub(super) async fn update_items(
    client: &impl GenericClient,
    changed: &[(OrderId, Item)],
) -> Result<(), Failure> {
    if changed.is_empty() {
        return Ok(());
    }
    let orders: Vec<Uuid> = changed.iter().map(|(order, _)| order.0).collect();
    let lines: Vec<i32> = changed
        .iter()
        .map(|(_, item)| i32::try_from(item.line).unwrap_or(i32::MAX))
        .collect();
    let statuses: Vec<&str> = changed
        .iter()
        .map(|(_, item)| item_word(item.status))
        .collect();
    let actuals: Vec<Option<i64>> = changed.iter().map(|(_, item)| item.actual).collect();
    let sql = "update items set status = p.status, actual = p.actual \
         from unnest($1::uuid[], $2::integer[], $3::text[], $4::bigint[]) \
         as p (order_id, line, status, actual) \
         where items.order_id = p.order_id and items.line = p.line";
    execute(client, sql, &[&orders, &lines, &statuses, &actuals]).await?;
    Ok(())
}

/// Claims an order: one conditional update decides; only a loser reads why.
pub(super) async fn claim(
    client: &Object,
    order: OrderId,
    shopper: ShopperId,
) -> Result<Claim, Failure> {
    let sql = "update orders set status = 'CLAIMED', shopper_id = $2 \
         where order_id = $1 and status = 'PLACED'";
    let won = execute(client, sql, &[&order.0, &shopper.get()]).await;
    if won.map_err(Failure::committing)? == 1 {
        return Ok(Claim::Won);
    }
    let sql = "select status, shopper_id from orders where order_id = $1";
    let rows = query(client, sql, &[&order.0]).await?;
    let Some(row) = rows.first() else {
        return Ok(Claim::UnknownOrder);
    };
    if maybe::<ShopperId>(row, "shopper_id")? == Some(shopper) {
        return Ok(Claim::Won);
    }
    Ok(match order_status(row)? {
        OrderStatus::Placed | OrderStatus::Claimed => Claim::Lost,
        OrderStatus::Shopping | OrderStatus::Delivering | OrderStatus::Complete => Claim::Gone,
    })
}
