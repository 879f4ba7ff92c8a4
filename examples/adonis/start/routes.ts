import router from '@adonisjs/core/services/router'

const AccountsController = () => import('#controllers/accounts_controller')
const ReportsController = () => import('#controllers/reports_controller')

router.post('/accounts/:id/deposits', [AccountsController, 'deposit'])
router.post('/reports/:id', [ReportsController, 'order'])
router.get('/reports/:id', [ReportsController, 'show'])
