-- SPDX-License-Identifier: MIT
-- Orders of some shop, and what is asked about them: run over and over by functrace.
begin;
create table if not exists customer (id integer primary key, name text unique, city text);
create table if not exists bought (id integer primary key, customer integer references customer, amount integer, item text);
create index if not exists bought_by on bought (customer);
with recursive n (i) as (select 1 union all select i + 1 from n where i < 20)
	insert or ignore into customer (name, city)
	select 'customer ' || abs(random() % 500), 'city ' || (i % 7) from n;
with recursive n (i) as (select 1 union all select i + 1 from n where i < 100)
	insert into bought (customer, amount, item)
	select 1 + abs(random() % 500), 1 + abs(random() % 9), hex(randomblob(6)) from n;
delete from bought where id < (select max(id) from bought) - 2000;
commit;
select city, count(*), sum(amount) from customer join bought on bought.customer = customer.id group by city order by 3 desc;
select customer, max(amount) from bought where item like '%7F%' group by customer limit 10;
update customer set city = city || '*' where id in (select customer from bought where amount = 9 limit 5);
update customer set city = replace(city, '*', '');
