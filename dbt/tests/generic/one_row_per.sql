{#- The grain that a mart's description promises: no two rows agree in all of `columns`. -#}
{% test one_row_per(model, columns) %}
select {{ columns | join(', ') }}
from {{ model }}
group by all
having count(*) > 1
{% endtest %}
