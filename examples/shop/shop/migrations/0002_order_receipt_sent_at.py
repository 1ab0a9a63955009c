from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('shop', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='order',
            name='receipt_sent_at',
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
    ]
