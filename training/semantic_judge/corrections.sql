-- What people have corrected, of all days; no row where nobody has.
SELECT corrected_date, user_id, as_of, item_id, aspect, level, person FROM judge_corrections
