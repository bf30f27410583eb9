create table customers (id integer primary key, name text not null, city text not null);
create table products (id integer primary key, name text not null, price real not null);
create table orders (id integer primary key, customer_id integer not null references customers (id),
                     product_id integer not null references products (id), quantity integer not null, ordered_on text not null);
insert into customers values (1, 'Ada', 'London'), (2, 'Grace', 'New York'), (3, 'Edsger', 'Rotterdam');
insert into products values (1, 'keyboard', 79.0), (2, 'screen', 249.5), (3, 'lamp', 32.0);
insert into orders values (1, 1, 1, 2, '2026-10-01'), (2, 1, 2, 1, '2026-10-03'), (3, 2, 3, 4, '2026-10-05'), (4, 3, 1, 1, '2026-10-09');
