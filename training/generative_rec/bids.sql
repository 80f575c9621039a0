-- What advertisers pay for a click, of all days; no row where nobody does.
SELECT item_id, bid_time, bid FROM bids
