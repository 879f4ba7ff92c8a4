import { BaseSchema } from '@adonisjs/lucid/schema'

export default class extends BaseSchema {
    protected tableName = 'locks'

    async up() {
        this.schema.createTable(this.tableName, (table) => {
            table.string('key', 255).notNullable().primary()
            table.string('owner').notNullable()
            table.bigint('expiration').unsigned().nullable()
        })
    }

    async down() {
        this.schema.dropTable(this.tableName)
    }
}
